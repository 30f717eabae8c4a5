"""`ocmt backup`, as an operator types it; on a database that DATABASE_URL names."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from .test_users import Shell, shell

__all__ = ["shell"]

PASSPHRASE = "correct horse battery"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    file.chmod(0o600)
    return file


def test_a_backup_is_made_verified_and_restored(
    shell: Shell, secret: Path, tmp_path: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.run("users add ada@example.org")
    file = tmp_path / "backup"
    given = f"{file} --passphrase-file {secret}"
    assert shell.run(f"backup create {given}") == 0
    assert shell.says.startswith(f"{file} made and verified: of 20")
    assert ", 0 objects, 0 secrets, 0.0 MB" in shell.says
    assert shell.run(f"backup verify {given}") == 0
    assert shell.says.startswith(f"{file} is whole: of 20")
    told = shell.data(f"backup verify {given}")
    assert told.keys() == {
        "file", "created_at", "program", "revision", "tables", "secrets", "objects", "size"
    }  # fmt: skip

    monkeypatch.setenv("DATABASE_URL", empty_dsn)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert shell.data(f"backup restore {given} --data {elsewhere}") == told
    assert [user["email"] for user in shell.data("users list")] == ["ada@example.org"]
    assert shell.run(f"backup restore {given} --data {elsewhere}") == 1
    assert "This installation is not empty." in shell.complains
    assert shell.run(f"backup restore {given} --data {elsewhere} --force") == 0


def test_it_says_which_agents_run_and_of_when_their_saves_are(
    shell: Shell, secret: Path, tmp_path: Path, dsn: str
) -> None:
    """Their latest changes are not in the backup, and nobody should find that out after a restore."""
    given = f"--passphrase-file {secret}"
    assert shell.run("users add ada@example.org") == 0
    assert shell.run(f"backup create {tmp_path}/first {given}") == 0
    assert shell.complains == ""

    async def wake() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(
            "insert into agents (user_id, runtime, state, broker_token_hash) "
            "select id, 'sandbox', 'awake', '' from users"
        )
        await connection.close()

    asyncio.run(wake())
    assert shell.run(f"backup create {tmp_path}/second {given}") == 0
    assert "Agents that run now: 1." in shell.says
    assert "1 never saved" in shell.says
    assert "ocmt agents hibernate" in shell.says
    assert shell.complains == ""  # a nightly job has mails of faults only


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("create FILE", "Nobody is here to be asked for the passphrase: name a file by --passphrase-file."),
        ("create FILE --passphrase-file {folder}/none", "cannot be read: No such file or directory."),
        ("create FILE --passphrase-file {folder}/open", "is open to other users (mode 0644): chmod 600 it."),
        ("create FILE --passphrase-file {folder}/lines", "holds more than one line."),
        ("create FILE --passphrase-file {folder}/short", "The passphrase has at least 12 characters."),
        ("verify FILE --passphrase-file {secret}", "There is no file"),
        ("verify {secret} --passphrase-file {secret}", "This is not a backup of OCMT, or not a whole one."),
        ("restore {secret} --passphrase-file {secret}", "This is not a backup of OCMT, or not a whole one."),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    shell: Shell, secret: Path, tmp_path: Path, command: str, complaint: str
) -> None:
    for name, content, mode in (
        ("open", "x" * 20, 0o644),
        ("lines", "a\nb\n", 0o600),
        ("short", "abc", 0o600),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    assert (
        shell.run(
            "backup " + command.replace("FILE", str(tmp_path / "file")).format(folder=tmp_path, secret=secret)
        )
        == 1
    )
    assert shell.says == ""
    assert complaint in shell.complains
    assert shell.complains.count("\n") == 1
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("command", ["create", "restore a b", "verify a --what", "remove a"])
def test_what_is_misused_says_how_to_use_it(shell: Shell, command: str) -> None:
    assert shell.run(f"backup {command}") == 2
    assert "--help" in shell.complains


def test_a_restore_that_cannot_be_makes_no_database(
    shell: Shell, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    data = tmp_path / "data"
    assert shell.run(f"backup restore {secret} --passphrase-file {secret} --data {data}") == 1
    assert not data.exists()


def test_on_a_terminal_the_passphrase_is_asked_for_twice_and_never_shown(tmp_path: Path) -> None:
    """In a process of its own, because a terminal belongs to one."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ocmt", "backup", "create", str(tmp_path / "file"), "--data", str(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for question, answer in ((b"Passphrase of the backup: ", PASSPHRASE), (b"Once more: ", "something else")):
        while not shown.endswith(question):
            shown += os.read(ours, 1000)
        os.write(ours, answer.encode() + b"\n")
    while b"Try again." not in shown:
        shown += os.read(ours, 1000)
    assert process.wait(10) == 1
    os.close(ours)
    assert b"ocmt: The two are not the same. Try again." in shown
    assert PASSPHRASE.encode() not in shown
    assert b"something else" not in shown
