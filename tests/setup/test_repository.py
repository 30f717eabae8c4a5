"""What the repository promises about itself: its commands, its locks, its pages."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ocmt.cli.app import app
from ocmt.settings import Settings

ROOT = Path(__file__).parents[2]


def test_without_a_python_that_is_new_enough_one_line_says_so(tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    for name in ("dirname", "sh"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "clone" / "scripts").mkdir(parents=True)
    bootstrap = tmp_path / "clone" / "scripts" / "bootstrap"
    bootstrap.write_text((ROOT / "scripts" / "bootstrap").read_text())
    answer = subprocess.run(
        ["/bin/sh", bootstrap], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("No Python 3.11 or newer was found.")
    assert "apt install python3" in answer.stderr


def test_the_set_up_needs_the_standard_library_only() -> None:
    """On the machine's bare Python: no site-packages, and nothing of ours but what it may import."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import ocmt.setup.program; "
        "print(sorted(name for name in sys.modules if name.startswith('ocmt.') and '.setup' not in name))"
    )
    answer = subprocess.run(
        [os.path.realpath("/proc/self/exe"), "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
    )
    ours = ["ocmt.errors", "ocmt.platform", "ocmt.platform.linked", "ocmt.platform.postgres_binaries"]
    assert answer.stdout.strip() == str(ours), answer.stderr


def test_locks_name_the_public_registries_only() -> None:
    python = set(re.findall(r"https?://[^/\"]+", (ROOT / "uv.lock").read_text()))
    assert python <= {"https://pypi.org", "https://files.pythonhosted.org"}
    for lock in ("agent/package-lock.json", "ui/package-lock.json"):
        packages = json.loads((ROOT / lock).read_text())["packages"].values()
        resolved = {package["resolved"] for package in packages if "resolved" in package}
        assert all(address.startswith("https://registry.npmjs.org/") for address in resolved)


def test_everything_that_npm_installs_is_pinned_by_hash() -> None:
    for lock in ("agent/package-lock.json", "ui/package-lock.json"):
        packages = json.loads((ROOT / lock).read_text())["packages"]
        assert all(
            "integrity" in package or package.get("inBundle") for name, package in packages.items() if name
        )


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    assert re.search(rf"`OCMT_{name.upper()}(__\w+)?`", page)  # nested ones part by part


def test_every_command_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/commands.md").read_text()
    for name in (name for name in app if not name.startswith("-")):
        assert f"`{name}" in page


@pytest.mark.parametrize("target", ["setup", "run", "test", "check", "bench", "docs", "clean"])
def test_every_make_command_is_there_and_in_the_reference(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"`make {target}`" in (ROOT / "docs/reference/commands.md").read_text()


def test_actions_of_others_are_pinned_by_commit() -> None:
    """A tag can be moved by whoever owns the action."""
    used = [
        line.partition("uses:")[2].split()[0]
        for file in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in file.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used)
