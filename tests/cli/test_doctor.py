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


def test_a_mail_server_that_does_not_answer_is_named() -> None:
    assert check("mail").ok
    found = check("mail", smtp_url="smtp://ada:hush@127.0.0.1:1")
    assert not found.ok
    assert "127.0.0.1:1" in found.found
    assert "hush" not in f"{found}"
    assert "OCMT_SMTP_URL" in (found.advice or "")


def test_a_public_address_that_is_not_safe_is_named() -> None:
    found = check("address", public_url="http://agents.example.org")
    assert not found.ok
    assert "TLS" in (found.advice or "")


def test_a_mistyped_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "OCMT_PROT" not in check("settings").found
    monkeypatch.setenv("OCMT_PROT", "8080")
    assert "OCMT_PROT" in check("settings").found


@pytest.mark.parametrize(
    ("key", "fine"),
    [
        ("sk-ant-api03-abc", True),
        ("sk-ant-api03-abc\n", True),
        ('"sk-ant-api03-abc"\r\n', True),
        ("sk-ant\nsk-ant", False),
        ("sk ant", False),
        ("schlüssel", False),
    ],
)
def test_the_form_of_the_platforms_key_is_tried(
    monkeypatch: pytest.MonkeyPatch, key: str, fine: bool
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    if fine:
        assert check("model").ok
        return
    with pytest.raises(SetupProblem, match="ANTHROPIC_API_KEY") as refused:
        load_settings()
    assert key not in refused.value.message


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com"),
        (" https://api.anthropic.com/v1/\n", "https://api.anthropic.com"),
        ('"http://127.0.0.1:9/proxy/v1"', "http://127.0.0.1:9/proxy"),
        ("https://gateway.example/v1x", "https://gateway.example/v1x"),
    ],
)
def test_the_version_at_the_end_of_a_providers_address_is_cut(
    monkeypatch: pytest.MonkeyPatch, given: str, base: str
) -> None:
    monkeypatch.setenv("OCMT_ANTHROPIC_URL", given)
    monkeypatch.setenv("OCMT_OPENAI_URL", given)
    settings = load_settings()
    assert (settings.anthropic_url, settings.openai_url) == (base, base)


@pytest.mark.parametrize(
    "given",
    ["api.anthropic.com", "ftp://x", "https://", "https://a b", "https://x?y=1", "https://münchen.de"],
)
def test_an_address_that_is_none_is_refused_at_the_start_with_its_name(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("OCMT_ANTHROPIC_URL", given)
    with pytest.raises(SetupProblem, match="anthropic_url"):
        load_settings()


def test_the_settings_of_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert (settings.egress, settings.egress_ports) == ("off", (80, 443))
    monkeypatch.setenv("OCMT_EGRESS", "opt-in")
    monkeypatch.setenv("OCMT_EGRESS_PORTS", "443, 8443")
    monkeypatch.setenv("OCMT_MODELS", "claude-sonnet-4-6, claude-haiku-4-5")
    settings = load_settings()
    assert (settings.egress, settings.egress_ports) == ("opt-in", (443, 8443))
    assert settings.models == ("claude-sonnet-4-6", "claude-haiku-4-5")
    for name, wrong in {"EGRESS": "yes", "EGRESS_PORTS": "0", "EGRESS_DAILY_BYTES": "-1"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(f"OCMT_{name}", wrong)
            with pytest.raises(SetupProblem, match=name.lower()):
                load_settings()


def test_below_the_floor_of_free_space_it_says_what_happens(tmp_path: Path) -> None:
    found = check("data folder", data_dir=tmp_path, disk_floor=2**60)
    assert not found.ok
    assert found.advice is not None
    assert "OCMT_DISK_FLOOR" in found.advice
