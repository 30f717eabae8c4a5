"""`ocmt doctor`: it tries, says what to do, and never shows a secret."""

import json
import os
import socket
from pathlib import Path

import pytest

from ocmt.cli.app import run
from ocmt.cli.doctor import Check, examine
from ocmt.errors import SetupProblem
from ocmt.settings import load_settings


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set up, and nothing of the person who runs the tests is looked at."""
    for name in ("DATABASE_URL", "ANTHROPIC_API_KEY", "OCMT_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OCMT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OCMT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OCMT_PORT", "0")


def check(name: str, **given: object) -> Check:
    return next(check for check in examine(load_settings(**given)) if check.name == name)


def test_on_a_bare_machine_it_says_to_set_up_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "NO  node" in shown
    assert "make setup" in shown
    assert "ok  python" in shown


def test_json_has_the_same_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)
    assert {"name", "ok", "found", "advice"} == set(checks[0])
    assert [check["name"] for check in checks][:4] == ["python", "node", "openclaw", "bubblewrap"]
    assert all(check["ok"] or check["advice"] for check in checks)


def test_with_docker_it_looks_at_docker_instead_of_sandboxes(tmp_path: Path) -> None:
    given = {"runtime": "docker", "docker_url": f"unix://{tmp_path}/nobody"}
    assert {"node", "openclaw", "bubblewrap", "sandbox"}.isdisjoint(
        check.name for check in examine(load_settings(**given))
    )
    found = check("docker", **given)
    assert not found.ok
    assert "systemctl start docker" in (found.advice or "")


def test_it_says_whether_this_machine_can_have_the_warm_spares_that_are_wanted() -> None:
    assert check("spares").ok
    found = check("spares", runtime="docker", warm_spares=1)
    assert not found.ok
    assert found.advice
    here = check("spares", warm_spares=2)
    assert here.ok == (os.geteuid() == 0)
    assert ("1.7 GB" if here.ok else "only root") in here.found


def test_a_taken_port_is_found_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = check("port", port=other.getsockname()[1])
    assert not found.ok
    assert "--port" in (found.advice or "")


def test_a_data_folder_below_a_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o600)
    assert not check("data folder", data_dir=tmp_path / "file" / "data").ok


def test_a_database_that_does_not_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/ocmt")
    assert not check("database").ok


def test_a_sign_in_provider_that_does_not_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mails" in check("sign-in").found
    monkeypatch.setenv("OCMT_OIDC__CORP__CLIENT_ID", "ocmt")
    missing = check("sign-in")
    assert not missing.ok
    assert "oidc.corp.issuer" in (missing.advice or "")
    monkeypatch.setenv("OCMT_OIDC__CORP__ISSUER", "http://127.0.0.1:9")
    silent = check("sign-in")
    assert not silent.ok
    assert "corp: http://127.0.0.1:9/.well-known/openid-configuration" in silent.found


def test_providers_are_shown_with_their_source_and_secrets_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ocmt.toml").write_text(
        '[oidc.google]\nclient_id = "in the file"\nclient_secret = "very-secret 1"\n'
        '[oidc.my_corp]\nissuer = "https://sso.example.org"\ntrusted_domains = ["a.org", "b.org"]\n'
    )
    monkeypatch.setenv("OCMT_OIDC__MY_CORP__CLIENT_ID", "in the environment")
    monkeypatch.setenv("OCMT_OIDC__MY_CORP__CLIENT_SECRET", "very-secret 2")
    assert run(["doctor", "--settings", "--json"]) == 0
    printed = capsys.readouterr().out
    assert "very-secret" not in printed
    rows = {row["setting"]: (row["value"], row["source"]) for row in json.loads(printed)}
    assert {name: row for name, row in rows.items() if name.startswith("oidc")} == {
        "oidc.google.client_id": ("in the file", "ocmt.toml"),
        "oidc.google.client_secret": ("********", "ocmt.toml"),
        "oidc.my_corp.client_id": ("in the environment", "environment OCMT_OIDC__MY_CORP__CLIENT_ID"),
        "oidc.my_corp.client_secret": ("********", "environment OCMT_OIDC__MY_CORP__CLIENT_SECRET"),
        "oidc.my_corp.issuer": ("https://sso.example.org", "ocmt.toml"),
        "oidc.my_corp.trusted_domains": ("a.org, b.org", "ocmt.toml"),
    }


def test_a_misspelt_setting_of_a_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCMT_OIDC__GOOGLE__CLIENTID", "x")
    with pytest.raises(SetupProblem, match=r"oidc\.google\.clientid"):
        load_settings()


def test_settings_are_shown_with_their_source_and_secrets_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ocmt.toml").write_text('agent_pause_after = "20s"\n')
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-very-secret")
    assert run(["doctor", "--settings", "--json"]) == 0
    printed = capsys.readouterr().out
    assert "very-secret" not in printed
    rows = {row["setting"]: row for row in json.loads(printed)}
    assert rows["anthropic_api_key"] == {
        "setting": "anthropic_api_key",
        "value": "********",
        "source": "environment ANTHROPIC_API_KEY",
    }
    assert rows["agent_pause_after"]["source"] == "ocmt.toml"
    assert rows["port"]["source"] == "environment OCMT_PORT"
    assert rows["model"]["source"] == "default"


def test_below_the_floor_of_free_space_it_says_what_happens(tmp_path: Path) -> None:
    found = check("data folder", data_dir=tmp_path, disk_floor=2**60)
    assert not found.ok
    assert found.advice is not None
    assert "OCMT_DISK_FLOOR" in found.advice
