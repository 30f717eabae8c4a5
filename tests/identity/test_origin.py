"""Whose page may write, and what the public address must be like."""

import pytest

from ocmt.errors import SetupProblem
from ocmt.identity.origin import PublicAddress


def test_behind_tls_the_cookie_is_bound_to_the_host() -> None:
    address = PublicAddress.parse("https://Agents.Example.org/")
    assert address.url == "https://agents.example.org"
    assert (address.secure, address.cookie) == (True, "__Host-ocmt")


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"])
def test_on_loopback_plain_http_is_fine(url: str) -> None:
    address = PublicAddress.parse(url)
    assert address.url == url
    assert (address.secure, address.cookie) == (False, "ocmt")


@pytest.mark.parametrize(
    "url", ["http://agents.example.org", "http://192.168.1.2:8080", "http://localhost.evil.org"]
)
def test_plain_http_where_others_can_listen_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(SetupProblem, match="put TLS in front"):
        PublicAddress.parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "agents.example.org",
        "ftp://localhost",
        "https://",
        "https://host/path",
        "https://host?x",
        "https://host:port",
        "https://user@host",
        "https://b\u00fccher.example",
    ],
)
def test_what_is_no_plain_address_is_refused_with_how_to_write_it(url: str) -> None:
    with pytest.raises(SetupProblem, match="OCMT_PUBLIC_URL"):
        PublicAddress.parse(url)


def test_the_token_of_a_link_is_in_the_fragment() -> None:
    address = PublicAddress.parse("https://agents.example.org")
    assert address.sign_in_link("abc") == "https://agents.example.org/sign-in#token=abc"


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("https://agents.example.org", True),
        ("https://agents.example.org:443", False),  # no browser writes it like this
        ("http://agents.example.org", False),
        ("https://agents.example.org:8443", False),
        ("https://evil.agents.example.org", False),
        ("https://agents.example.org.evil.org", False),
        ("https://localhost", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_our_own_pages_may_write(origin: str, admitted: bool) -> None:
    assert PublicAddress.parse("https://agents.example.org:443").admits_write(origin, None) is admitted


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("http://localhost:8080", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("http://localhost:3000", False),
        ("https://localhost:8080", False),
        ("http://localhost", False),
    ],
)
def test_on_loopback_every_name_of_this_machine_will_do_on_the_same_port(origin: str, admitted: bool) -> None:
    assert PublicAddress.parse("http://localhost:8080").admits_write(origin, None) is admitted


@pytest.mark.parametrize(
    ("fetch_site", "admitted"),
    [("same-origin", True), ("same-site", False), ("cross-site", False), (None, False)],
)
def test_without_an_origin_the_browser_itself_must_say_that_it_is_ours(
    fetch_site: str | None, admitted: bool
) -> None:
    assert PublicAddress.parse("https://agents.example.org").admits_write(None, fetch_site) is admitted


def test_fetch_site_does_not_outweigh_a_foreign_origin() -> None:
    address = PublicAddress.parse("https://agents.example.org")
    assert not address.admits_write("https://evil.org", "same-origin")


def test_programs_may_sign_in_but_other_sites_may_not_sign_their_visitors_in() -> None:
    address = PublicAddress.parse("https://agents.example.org")
    assert address.admits_sign_in(None, None)
    assert address.admits_sign_in("https://agents.example.org", "same-origin")
    assert not address.admits_sign_in("https://evil.org", None)
    assert not address.admits_sign_in(None, "cross-site")


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "http://127.0.0.1:8080", "https://localhost", "http://[::1]:80"]
)
@pytest.mark.parametrize(
    "listener", ["0.0.0.0", "::", "", "192.0.2.7", "10.0.0.1", "agents.example.org", "localhost.evil.org"]
)
def test_a_listener_for_strangers_under_an_address_of_this_machine_is_refused(
    url: str, listener: str
) -> None:
    with pytest.raises(SetupProblem, match=r"OCMT_PUBLIC_URL.*OCMT_BEHIND_PROXY"):
        PublicAddress.parse(url, listener=listener)
    behind = PublicAddress.parse(url, listener=listener, behind_proxy=True)
    assert not behind.local, "behind a proxy nobody knows who asks"


@pytest.mark.parametrize("listener", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_only_where_address_and_listener_are_loopback_is_it_local(listener: str) -> None:
    assert PublicAddress.parse("http://localhost:8080", listener=listener).local
    assert not PublicAddress.parse("https://agents.example.org", listener=listener).local
    assert not PublicAddress.parse("http://localhost:8080").local, "where the listener is not known"


def test_blanks_around_the_address_are_left_out() -> None:
    assert PublicAddress.parse(" https://agents.example.org/ \n").url == "https://agents.example.org"
