"""`ocmt users` and `ocmt db`, as an operator types them; on a database that DATABASE_URL names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ocmt.cli import app as edge


class Shell:
    """Runs commands in this process; `says` and `complains` hold what the last one printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.says = self.complains = ""

    def run(self, command: str) -> int:
        code = edge.run(command.split())
        self.says, self.complains = self._capsys.readouterr()
        return code

    def data(self, command: str) -> Any:
        assert self.run(f"{command} --json") == 0, self.complains
        return json.loads(self.says)


@pytest.fixture
def shell(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("OCMT_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("OCMT_PUBLIC_URL", raising=False)
    # The logging of a whole process is not for one test to configure.
    monkeypatch.setattr("ocmt.platform.telemetry.configure_logging", lambda *_: None)
    with capture_logs():
        yield Shell(capsys)


def test_the_first_user_that_is_added_is_the_administrator(shell: Shell) -> None:
    assert shell.run("users list") == 0
    assert shell.says == "There are no users yet.\n"
    assert shell.run("users add Ada@example.org --name Ada") == 0
    assert shell.says == "ada@example.org (administrator) added\n"
    assert shell.run("users add bob@example.org") == 0
    assert shell.says == "bob@example.org added\n"
    listed = shell.data("users list")
    assert [(each["email"], each["name"], each["role"], each["status"]) for each in listed] == [
        ("ada@example.org", "Ada", "admin", "active"),
        ("bob@example.org", None, "user", "active"),
    ]
    assert shell.run("users list") == 0
    assert shell.says.splitlines()[0].split() == ["EMAIL", "NAME", "ROLE", "STATUS", "CREATED", "AT"]


def test_who_may_make_an_account_is_said_from_the_shell(shell: Shell) -> None:
    assert shell.run("sign-up allow Example.org") == 0
    assert shell.run("sign-up allow ada@example.net") == 0
    assert shell.run("sign-up invite bob@example.com --role auditor") == 0
    assert shell.says.startswith("bob@example.com may sign in until ")
    found = shell.data("sign-up list")
    assert {(rule["kind"], rule["value"]) for rule in found["rules"]} == {
        ("domain", "example.org"),
        ("address", "ada@example.net"),
    }
    assert [(one["email"], one["role"]) for one in found["invitations"]] == [("bob@example.com", "auditor")]
    assert shell.run("sign-up forbid example.org") == 0
    assert shell.run("sign-up revoke bob@example.com") == 0
    assert shell.run("sign-up revoke bob@example.com") == 1
    assert shell.complains == "ocmt: There is no open invitation of bob@example.com.\n"
    found = shell.data("sign-up list")
    assert [rule["value"] for rule in found["rules"]] == ["ada@example.net"]
    assert found["invitations"] == []
    assert shell.run("sign-up allow example") == 1
    assert "write it like example.org" in shell.complains


def test_a_user_is_shut_out_and_let_in_again(shell: Shell) -> None:
    shell.run("users add ada@example.org")
    shell.run("users add bob@example.org")
    assert shell.run("users suspend bob@example.org") == 0
    assert shell.says == "bob@example.org is suspended\n"
    assert shell.run("users login-link bob@example.org") == 1
    assert shell.data("users suspend bob@example.org --lift")["status"] == "active"
    assert shell.run("users login-link bob@example.org") == 0


def test_a_login_link_is_all_that_is_printed(shell: Shell) -> None:
    shell.run("users add ada@example.org")
    assert shell.run("users login-link ada@example.org") == 0
    assert shell.says.startswith("http://localhost:8080/sign-in#token=")
    assert shell.says.count("\n") == 1
    link = shell.data("users login-link ada@example.org --port 9000")["link"]
    assert link.startswith("http://localhost:9000/sign-in#token=")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("users add nobody", "This is not an e-mail address; write it like ada@example.org."),
        ("users add ada@example.org", "There is a user ada@example.org already."),
        (
            "users suspend ada@example.org",
            "ada@example.org is the last administrator: add another one first.",
        ),
        ("users login-link eve@example.org", "There is no user eve@example.org."),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(shell: Shell, command: str, complaint: str) -> None:
    shell.run("users add ada@example.org")
    assert shell.run(command) == 1
    assert (shell.says, shell.complains) == ("", f"ocmt: {complaint}\n")


def test_a_database_that_does_not_answer_is_said_in_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ocmt:secret@127.0.0.1:1/ocmt")
    assert shell.run("users list") == 1
    assert shell.complains == (
        "ocmt: Nothing answers at 127.0.0.1:1: start PostgreSQL there, or correct the host and port in "
        "DATABASE_URL.\n"
    )


def test_where_there_is_no_installation_none_is_made_by_looking(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    for command in ("users list", "users suspend ada@example.org", "db status"):
        assert shell.run(command) == 1
        assert "There is no database in" in shell.complains
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_migrated_once(shell: Shell, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_dsn)
    assert shell.data("db status")["current"] is False
    assert shell.run("users list") == 1
    assert "run `ocmt db migrate`" in shell.complains
    assert "0001" in shell.data("db migrate")["applied"]
    assert shell.data("db migrate")["applied"] == []
    assert shell.data("db status")["current"] is True
    assert shell.run("users list") == 0


def test_parts_that_do_not_belong_together_are_refused_until_they_are_adopted(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.run("vault rotate") == 0, shell.complains
    (tmp_path / "passphrase").write_text("correct horse battery staple")
    (tmp_path / "passphrase").chmod(0o600)
    monkeypatch.setenv("OCMT_DATA_DIR", str(tmp_path / "other"))
    backup = f"backup create {tmp_path}/file --passphrase-file {tmp_path}/passphrase"
    for command in ("keys rotate", "vault rotate", backup):
        assert shell.run(command) == 1, command
        assert "does not belong to the database in DATABASE_URL" in shell.complains
        assert shell.complains.count("\n") == 1
    assert shell.run("db adopt") == 1
    assert "is empty" in shell.complains
    shutil.copytree(tmp_path / "secrets", tmp_path / "other" / "secrets", dirs_exist_ok=True)
    (tmp_path / "other" / "secrets" / "installation-id.sealed").unlink()
    assert shell.run("db adopt") == 0
    assert "now belong to installation" in shell.says
    assert shell.run("vault rotate") == 0
    assert shell.run(backup) == 0
