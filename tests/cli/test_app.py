"""The edge of the command line: what people and scripts see of an error, and how soon they see the help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from cyclopts import App

from ocmt.cli import app as edge
from ocmt.cli.output import print_json, print_table
from ocmt.errors import SetupProblem


def ocmt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ocmt", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_imports_no_command() -> None:
    """Measured by what is imported, not by a clock: the drivers and frameworks make a start slow."""
    program = (
        "import sys; from ocmt.cli.app import run; code = run(['--help'])\n"
        "heavy = {'fastapi', 'asyncpg', 'aiohttp', 'pydantic', 'structlog'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("up", "users", "db", "doctor", "setup"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["--bogus"],
        ["users", "bogus"],
        ["users", "add"],
        ["users", "list", "--bogus"],
        ["users", "list", "surplus"],
        ["up", "--port", "many"],
    ],
)
def test_misuse_is_one_line_that_points_to_the_help(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert edge.run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "--help`" in said.err


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Runs a function as if it were a command of ours."""

    def run(function: Callable[[], object]) -> int:
        app = App(exit_on_error=False, print_error=False, suppress_keyboard_interrupt=False)
        app.command(function, name="try")
        monkeypatch.setattr(edge, "app", lambda arguments: app(arguments, result_action="return_value"))
        return edge.run(["try"])

    return run


def test_our_errors_are_one_line_without_their_details(
    command: Callable[[Callable[[], object]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(raising(SetupProblem("Port 80 is taken:\n  choose another.", detail="EADDRINUSE"))) == 1
    assert capsys.readouterr() == ("", "ocmt: Port 80 is taken: choose another.\n")


def test_ctrl_c_is_quiet(
    command: Callable[[Callable[[], object]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_not_dressed_up(command: Callable[[Callable[[], object]], int]) -> None:
    with pytest.raises(ZeroDivisionError):
        command(raising(ZeroDivisionError()))


def test_a_command_may_choose_its_exit_code(command: Callable[[Callable[[], object]], int]) -> None:
    assert command(lambda: 1) == 1
    assert command(lambda: None) == 0


def test_a_reader_that_goes_away_early_is_no_error() -> None:
    program = (
        "import sys; from ocmt.cli import app as edge\n"
        "edge.app = lambda arguments: print('x' * 100_000)\n"
        "sys.exit(edge.run([]))"
    )
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_version_is_the_packages() -> None:
    done = ocmt("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout[0].isdigit()


def test_json_has_times_in_utc_and_ids_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"id": UUID(int=1), "at": datetime(2026, 11, 23, 12, tzinfo=UTC), "name": "Zoë"})
    assert json.loads(capsys.readouterr().out) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-11-23T12:00:00Z",
        "name": "Zoë",
    }


def test_a_table_is_aligned_under_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"email": "ada@example.org", "is_admin": True}, {"email": "b@c.d", "is_admin": False}]
    print_table(rows, ["email", "is_admin"], empty="Nobody.")
    print_table([], ["email"], empty="Nobody.")
    assert capsys.readouterr().out.splitlines() == [
        "EMAIL            IS ADMIN",
        "ada@example.org  yes",
        "b@c.d            no",
        "Nobody.",
    ]
