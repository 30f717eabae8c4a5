"""docs/reference/channels.md says what the program does."""

from __future__ import annotations

import runpy
from pathlib import Path

from ocmt.channels.schema import GITHUB, SLACK_BLOCKS, SLACK_FIELDS, SLACK_SUBTYPES, TELEGRAM
from ocmt.chat.controls import COMMANDS, STOP_PHRASES

ROOT = Path(__file__).parent.parent.parent


def test_the_tables_of_the_page_are_those_of_the_program() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "channel_tables.py"))
    page = (ROOT / "docs" / "reference" / "channels.md").read_text()
    assert script["filled"](page) == page, "run scripts/channel_tables.py"


def test_the_page_names_everything() -> None:
    page = (ROOT / "docs" / "reference" / "channels.md").read_text()
    named = [*TELEGRAM, *SLACK_FIELDS, *SLACK_SUBTYPES, *SLACK_BLOCKS, *GITHUB, *STOP_PHRASES]
    assert [name for name in named if f"`{name}`" not in page] == []
    assert [name for name in COMMANDS if f"`/{name}`" not in page] == []
