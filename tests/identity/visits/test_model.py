"""Which OCMT_AGENT_URL keeps the agents apart from the platform, and which is refused and why."""

from __future__ import annotations

import pytest

from ocmt.errors import SetupProblem
from ocmt.identity.origin import PublicAddress
from ocmt.identity.visits.model import AgentAddress

PUBLIC = PublicAddress.parse("https://ocmt.example.org")
LOCAL = PublicAddress.parse("http://localhost:8080")


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://openclaw.example.net", "https://openclaw.example.net"),
        (" https://OpenClaw.example.net/ ", "https://openclaw.example.net"),
        ("https://openclaw.example.net:443", "https://openclaw.example.net"),
        ("https://openclaw.example.net:8443", "https://openclaw.example.net:8443"),
        ("https://agents.ocmt.example.org", "https://agents.ocmt.example.org"),
    ],
)
def test_a_host_of_its_own_is_taken(url: str, read: str) -> None:
    address = AgentAddress.beside(url, PUBLIC)
    assert (address.url, address.origins, address.secure) == (read, frozenset({read}), True)
    assert address.cookie == "__Host-ocmt-agent"
    assert address.cookie != PUBLIC.cookie


def test_on_this_machine_a_name_below_localhost_will_do() -> None:
    address = AgentAddress.beside("http://agents.localhost:8080", LOCAL)
    assert (address.url, address.cookie) == ("http://agents.localhost:8080", "ocmt-agent")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://ocmt.example.org", "same host"),
        ("https://OCMT.example.org:8443", "same host"),
        ("https://ocmt.example.org.", "same host"),
        ("http://openclaw.example.net", "Write both with https://"),
        ("https://openclaw.example.net/pages", "Write OCMT_AGENT_URL"),
        ("https://openclaw.example.net?x", "Write OCMT_AGENT_URL"),
        ("https://user@openclaw.example.net", "Write OCMT_AGENT_URL"),
        ("https://@openclaw.example.net", "Write OCMT_AGENT_URL"),
        ("openclaw.example.net", "Write OCMT_AGENT_URL"),
        ("ftp://openclaw.example.net", "Write OCMT_AGENT_URL"),
        ("https://", "Write OCMT_AGENT_URL"),
        ("https://münchen.de", "Write OCMT_AGENT_URL"),
        ("https://a b", "Write OCMT_AGENT_URL"),
        ("https://a;script-src", "Write OCMT_AGENT_URL"),
        ("https://a:99999", "Write OCMT_AGENT_URL"),
        ("https://a\r\nb", "Write OCMT_AGENT_URL"),
        ("", "Write OCMT_AGENT_URL"),
    ],
)
def test_what_would_not_keep_them_apart_is_refused_with_what_to_do(url: str, why: str) -> None:
    with pytest.raises(SetupProblem, match=why):
        AgentAddress.beside(url, PUBLIC)


@pytest.mark.parametrize(
    "url", ["http://localhost:9000", "http://127.0.0.1:8080", "http://[::1]:8080", "http://127.0.0.2:8080"]
)
def test_loopback_by_another_name_is_the_same_host(url: str) -> None:
    with pytest.raises(SetupProblem, match="same host"):
        AgentAddress.beside(url, LOCAL)


def test_plain_http_is_for_this_machine() -> None:
    with pytest.raises(SetupProblem, match="safe only on this machine"):
        AgentAddress.beside("http://openclaw.example.net", LOCAL)


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("openclaw.example.net", True),
        ("OpenClaw.example.net", True),
        ("openclaw.example.net:8443", True),
        ("openclaw.example.net.", True),
        ("ocmt.example.org", False),
        ("openclaw.example.net.evil.example", False),
        ("x.openclaw.example.net", False),
        ("openclaw.example.net@evil.example", False),
        ("openclaw.example.net:80:80", False),
        ("", False),
    ],
)
def test_whose_a_request_is_is_told_by_its_host(header: str, ours: bool) -> None:
    assert AgentAddress.beside("https://openclaw.example.net", PUBLIC).serves(header) is ours
