"""Sphinx configuration: `make docs`."""

from ocmt import __version__

project = "OCMT"
author = "OCMT maintainers"
project_copyright = author
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "OCMT"
