"""Settings: trimmed, checked in form, and refused at the start in one line that names them.

The tables below have a line for every setting, so that a new one is thought about on the day it is made.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ocmt.cli.setting_sources import unknown_variables
from ocmt.errors import SetupProblem
from ocmt.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OCMT_", "DATABASE_URL", "ANTHROPIC_", "DOCKER_HOST")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OCMT_DATA_DIR", str(tmp_path))


def variable(name: str) -> str:
    return {"database_url": "DATABASE_URL", "anthropic_api_key": "ANTHROPIC_API_KEY"}.get(
        name, f"OCMT_{name.upper()}"
    )


GOOD: dict[str, tuple[str, Any]] = {
    "data_dir": ("/tmp/somewhere", Path("/tmp/somewhere")),
    "cache_dir": ("/tmp/cache", Path("/tmp/cache")),
    "host": ("::1", "::1"),
    "port": ("9000", 9000),
    "public_url": ("https://agents.example.org/", "https://agents.example.org"),
    "ui_dir": ("/tmp/ui", Path("/tmp/ui")),
    "database_url": ("postgresql://u:p%40ss@h:5432/d", "postgresql://u:p%40ss@h:5432/d"),
    "docker_url": ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
    "agent_image": ("registry.example.org:5000/ocmt-agent:1", "registry.example.org:5000/ocmt-agent:1"),
    "anthropic_api_key": ("sk-ant-x", "sk-ant-x"),
    "agent_url": ("https://pages.example.org", "https://pages.example.org"),
    "anthropic_url": ("http://127.0.0.1:9", "http://127.0.0.1:9"),
    "openai_url": ("https://api.example.org/v1/", "https://api.example.org"),
    "model": ("claude-sonnet-4-6", "claude-sonnet-4-6"),
    "models": ("claude-sonnet-4-6, claude-haiku-4-5", ("claude-sonnet-4-6", "claude-haiku-4-5")),
    "egress_ports": ("443, 8443", (443, 8443)),
    "telegram_url": ("http://127.0.0.1:9/t", "http://127.0.0.1:9/t"),
    "slack_url": ("http://127.0.0.1:9/s", "http://127.0.0.1:9/s"),
    "github_url": ("http://127.0.0.1:9/g", "http://127.0.0.1:9/g"),
    "sign_up_allowed": ("ada@example.org, example.com", ("ada@example.org", "example.com")),
    "trusted_proxies": ("10.0.0.1, 10.1.2.3/8, ::1", ("10.0.0.1", "10.1.2.3/8", "::1")),
    "smtp_url": ("smtps://u:p@mail.example.org", "smtps://u:p@mail.example.org"),
    "mail_from": ("Agents <agents@example.org>", "Agents <agents@example.org>"),
}
"""What a text may be, and what it is read as."""

BAD: dict[str, tuple[str, ...]] = {
    "host": ("local host", "http://127.0.0.1", "a\nb"),
    "keep_conversations": ("0", "many"),
    "keep_conversation_bytes": ("0", "512M"),
    "keep_delivery_bytes": ("0", "x"),
    "keep_attachment_bytes": ("0", "x"),
    "keep_snapshot_bytes": ("0", "x"),
    "port": ("http", "70000", "-1", "80.5"),
    "public_url": (
        "agents.example.org",
        "ftp://x",
        "https://",
        "https://a b",
        "https://u:p@x",
        "https://x?y",
    ),
    "database_url": (
        "mysql://h/d",
        "h/d",
        "postgresql://u:p@ss/w@h/d",
        "postgresql://u:p#w@h/d",
        "postgresql://u:p@h:port/d",
        "postgresql://u:p@h/d\nx",
    ),
    "database_pool": ("many", "1"),
    "runtime": ("podman",),
    "docker_url": ("/var/run/docker.sock", "unix://", "ssh://h"),
    "agent_image": ("two words", "-x"),
    "agent_pause_after": ("soon", "-5s", "0s", "5 fortnights", "99999999999999999999d", "1e400s"),
    "agent_stop_after": ("0", "never"),
    "agent_max_awake": ("0s",),
    "agent_page_out_after": ("x",),
    "agent_wake_ahead": ("x",),
    "snapshot_every": ("0s",),
    "agent_memory": ("2GiB", "0", "-1"),
    "agent_disk": ("0", "eight"),
    "agents_memory": ("0", "all"),
    "warm_spares": ("17", "-1", "x"),
    "wake_timeout": ("0s", "x"),
    "turn_timeout": ("0s", "x"),
    "anthropic_api_key": ("sk ant", "sk\nant", "sk-änt", "sk\x00"),
    "anthropic_url": ("api.anthropic.com", "https://u:p@h", "https://h?x=1", "http://h h"),
    "openai_url": ("x",),
    "model": ("a b", "", "ü", "a\rb"),
    "demo_model": ("perhaps",),
    "agent_url": ("x", "https://u@x", "https://x?y"),
    "agent_job_awake": ("x",),
    "behind_proxy": ("perhaps",),
    "disk_floor": ("-1", "2GB"),
    "egress": ("perhaps", "true"),
    "egress_daily_bytes": ("-1", "2GB"),
    "egress_ports": ("0", "65536", "http", "443;80"),
    "turn_call_limit": ("0", "x"),
    "daily_token_limit": ("-1", "x"),
    "telegram_url": ("x",),
    "slack_url": ("x",),
    "github_url": ("file:///x",),
    "sign_up": ("everybody",),
    "mfa_for_admins": ("sometimes",),
    "audit_keep": ("1h", "x"),
    "trusted_proxies": ("proxy.example.org", "10.0.0.0/33", "10.0.0.1;10.0.0.2"),
    "smtp_url": ("mail.example.org", "http://x", "smtp://", "smtp://u:p@ss/w@h", "smtp://h:x"),
    "mail_from": ("nobody", "a b@c", "<>"),
    "log_format": ("xml",),
    "log_level": ("loud",),
}
"""What is refused. The empty text of `model` is no fault: see below."""

ANY_TEXT = {"credentials", "oidc", "data_dir", "cache_dir", "ui_dir", "sign_up_allowed", "models"}
"""Settings of which every text is one, or which other tests are about."""


def read(name: str) -> Any:
    value = getattr(load_settings(), name)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def test_every_setting_stands_in_the_tables() -> None:
    assert set(Settings.model_fields) == set(GOOD) | set(BAD) | ANY_TEXT


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "around", [("", ""), (" ", " "), ("", "\n"), ("", "\r\n"), ("\ufeff", "\t"), ('"', '"\n'), ("'", "'")]
)
def test_what_stands_around_a_value_does_not_count(
    name: str, around: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = GOOD[name]
    monkeypatch.setenv(variable(name), around[0] + text + around[1])
    assert read(name) == value


@pytest.mark.parametrize("name", sorted(set(GOOD) | set(BAD)))
def test_an_empty_value_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("data_dir", "cache_dir"):
        monkeypatch.setenv("XDG_DATA_HOME", "/tmp/data")
        monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/cache")
    monkeypatch.delenv("OCMT_DATA_DIR")
    default = read(name)
    for empty in ("", "  ", "\n"):
        monkeypatch.setenv(variable(name), empty)
        assert read(name) == default


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts if text]
)
def test_what_has_not_the_form_is_refused_in_one_line_with_its_name(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if "\x00" in text:
        (tmp_path / "ocmt.toml").write_text(f'{name} = "sk\\u0000"')
    else:
        monkeypatch.setenv(variable(name), text)
    with pytest.raises(SetupProblem) as refused:
        load_settings()
    words = refused.value.message
    assert words.startswith("The setting ")
    assert variable(name) in words
    assert "\n" not in words
    assert refused.value.__cause__ is None  # which would quote the value


def test_a_database_may_have_several_hosts() -> None:
    url = "postgresql://u:p@first:5432,second:5433/d?target_session_attrs=primary"
    found = Settings(database_url=SecretStr(url)).database_url
    assert found is not None
    assert found.get_secret_value() == url
    with pytest.raises(ValueError, match="write it like"):
        Settings(database_url=SecretStr("postgresql://u:p@first:5432,second:port/d"))


@pytest.mark.parametrize("name", ["database_url", "smtp_url", "anthropic_api_key"])
def test_no_refusal_quotes_a_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("hush hush", "mysql://u:hush@h h/d", "smtp://u:hush@h:port\nx", "hush\x1b"):
        monkeypatch.setenv(variable(name), text)
        with pytest.raises(SetupProblem) as refused:
            load_settings()
        assert "hush" not in refused.value.message


def test_the_same_holds_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "ocmt.toml").write_text('anthropic_url = " https://h.example.org/ "\nsmtp_url = ""\n')
    settings = load_settings()
    assert settings.anthropic_url == "https://h.example.org"
    assert settings.smtp_url is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"port = ", "not valid TOML"),
        (b"model = '\xff'", "not UTF-8"),
        (b"prot = 8080", "There is no setting prot"),
        (b"[oidc.google]\nclientid = 'x'", r"oidc.google.clientid \(OCMT_OIDC__GOOGLE__CLIENTID\)"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "ocmt.toml").write_bytes(content)
    with pytest.raises(SetupProblem, match=words):
        load_settings()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_of_another_mode_is_named(tmp_path: Path) -> None:
    (tmp_path / "ocmt.toml").write_text("")
    (tmp_path / "ocmt.toml").chmod(0)
    with pytest.raises(SetupProblem, match=r"ocmt.toml in the data folder cannot be read"):
        load_settings()


def test_a_table_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCMT_OIDC", "{google")
    with pytest.raises(SetupProblem, match="oidc"):
        load_settings()


def test_a_providers_values_are_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCMT_OIDC__GOOGLE__CLIENT_SECRET", "secret\n")
    secret = load_settings().oidc["google"].client_secret
    assert secret is not None
    assert secret.get_secret_value() == "secret"


def test_a_variable_that_no_setting_reads_is_found() -> None:
    given = {
        "OCMT_PROT": "1",
        "OCMT_PORT": "1",
        "OCMT_OIDC__X__ISSUER": "x",
        "HOME": "/",
        "OCMT_DATABASE_URL": "x",
    }
    assert unknown_variables(given) == ["OCMT_PROT"]
