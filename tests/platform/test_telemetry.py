"""No secret gets into a log line, under whatever name or inside whatever text it comes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from ocmt.platform.telemetry import REDACTED, configure_logging, redact

TOKEN = "ocmt_agent_" + "Ab3-_" * 9
KEY = "sk-ant-api03-" + "x" * 40


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", "abc"),
        ("gateway_token", "abc"),
        ("Authorization", "Basic abc"),
        ("set-cookie", "a=b"),
        ("x-api-key", b"abc"),
        ("password", "abc"),
        ("headers", {"authorization": "abc"}),
        ("items", [{"client_secret": "abc"}]),
    ],
)
def test_what_is_kept_under_a_secrets_name_is_redacted(name: str, value: object) -> None:
    assert "abc" not in str(redact(None, "info", {name: value}))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"got {TOKEN}, sorry", f"got {REDACTED}, sorry"),
        (f"{KEY}", REDACTED),
        ("https://host/sign-in#token=abc_def", f"https://host/sign-in#token={REDACTED}"),
        ("Bearer abc.def", f"Bearer {REDACTED}"),
        ("postgresql://ocmt:abc@/ocmt?host=/x", f"postgresql://{REDACTED}@/ocmt?host=/x"),
        ("ocmt_http_requests_total", "ocmt_http_requests_total"),
    ],
)
def test_what_looks_like_a_secret_is_redacted_inside_a_text(text: str, clean: str) -> None:
    assert redact(None, "info", {"event": text})["event"] == clean
    assert redact(None, "info", {"error": ValueError(text)})["error"] == clean


def test_no_text_moves_the_readers_terminal() -> None:
    path = "/\x1b]0;evil\x07\x9b2J\r"
    for value in (path, path.encode(), ValueError(path)):
        shown = str(redact(None, "info", {"path": value})["path"])
        assert all(letter.isprintable() for letter in shown)
        assert "\\x1b]0;evil\\x07" in shown
    trace = "Traceback:\n\tline"
    assert redact(None, "info", {"exception": trace})["exception"] == trace


def test_counts_and_fencing_tokens_are_no_secrets() -> None:
    line = {"input_tokens": 12, "lease_token": 7, "tokens": "many", "event": "x", "took": None}
    assert redact(None, "info", dict(line)) == line


class TestLogging:
    """Our own lines and those of the libraries come out in one shape."""

    @pytest.fixture(autouse=True)
    def kept(self) -> Iterator[None]:
        root = logging.getLogger()
        handlers, level, config = root.handlers[:], root.level, structlog.get_config()
        yield
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**config)

    def lines(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    def test_json_has_one_object_a_line_tracebacks_included(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logging("json", "info")
        log = structlog.get_logger("ocmt.test")
        log.debug("unseen")
        try:
            int(KEY)
        except ValueError:
            log.exception("failed", user_id="u")
        logging.getLogger("aiohttp").warning("from a library: %s", TOKEN)
        ours, theirs = self.lines(capsys)
        assert (ours["event"], ours["level"], ours["logger"]) == ("failed", "error", "ocmt.test")
        assert "ValueError" in ours["exception"]
        assert KEY not in ours["exception"]
        assert theirs["event"] == f"from a library: {REDACTED}"

    def test_the_console_shows_readable_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logging("console", "debug")
        structlog.get_logger("ocmt.test").info("seen", token="abc", rows=3)
        shown = capsys.readouterr().err
        assert "seen" in shown
        assert "rows=3" in shown
        assert "abc" not in shown
