"""Where a request comes from: behind proxies of ours, behind none, and behind those that somebody made up."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from ocmt.errors import SetupProblem
from ocmt.platform.http import addresses
from ocmt.platform.http.addresses import client_address, parse_networks

PROXIES = parse_networks(["10.0.0.0/8", " 35.191.0.1 ", "fd00::/8", ""])


def connection(peer: str | None, *forwarded: str) -> HTTPConnection:
    return HTTPConnection(
        {
            "type": "http",
            "client": None if peer is None else (peer, 50000),
            "headers": [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded],
        }
    )


def test_only_short_lines_are_kept() -> None:
    kept = addresses._kept_nearest.cache_info().currsize
    for number in range(20):
        long = ", ".join([f"192.0.2.{number}"] * 50)
        assert client_address(connection("10.1.2.3", long), PROXIES) == f"192.0.2.{number}"
    assert addresses._kept_nearest.cache_info().currsize == kept


class TestWithoutProxies:
    def test_it_is_the_peer(self) -> None:
        assert client_address(connection("203.0.113.5"), ()) == "203.0.113.5"

    def test_what_the_peer_says_of_others_does_not_count(self) -> None:
        assert client_address(connection("203.0.113.5", "198.51.100.7"), ()) == "203.0.113.5"
        assert client_address(connection("127.0.0.1", "198.51.100.7"), ()) == "127.0.0.1"

    def test_a_socket_without_addresses_has_none(self) -> None:
        assert client_address(connection(None), ()) is None
        assert client_address(connection(None, "198.51.100.7"), PROXIES) is None

    def test_what_is_no_address_is_none(self) -> None:
        assert client_address(connection("testclient"), ()) is None


class TestBehindProxies:
    def test_it_is_whom_the_proxy_saw(self) -> None:
        assert client_address(connection("10.1.2.3", "198.51.100.7"), PROXIES) == "198.51.100.7"

    def test_several_of_ours_are_passed_through(self) -> None:
        chain = connection("10.1.2.3", "198.51.100.7, 35.191.0.1,10.9.9.9")
        assert client_address(chain, PROXIES) == "198.51.100.7"

    def test_what_stands_left_of_a_stranger_anybody_may_have_written(self) -> None:
        chain = connection("10.1.2.3", "192.0.2.1, 10.0.0.1, 198.51.100.7")
        assert client_address(chain, PROXIES) == "198.51.100.7"

    def test_several_lines_are_one(self) -> None:
        assert client_address(connection("10.1.2.3", "192.0.2.1", "198.51.100.7"), PROXIES) == "198.51.100.7"

    def test_a_stranger_who_plays_the_proxy_is_the_client(self) -> None:
        assert client_address(connection("35.191.0.2", "198.51.100.7"), PROXIES) == "35.191.0.2"

    def test_where_only_our_own_are_named_it_is_the_outermost_of_them(self) -> None:
        assert client_address(connection("10.1.2.3", "10.0.0.7, 10.0.0.8"), PROXIES) == "10.0.0.7"
        assert client_address(connection("10.1.2.3"), PROXIES) == "10.1.2.3"

    @pytest.mark.parametrize("nonsense", ["", "unknown", "198.51.100.7:1234", "_hidden", "ä", "1.2.3"])
    def test_nonsense_that_the_proxy_passed_on_is_nobody_and_is_not_passed_through(
        self, nonsense: str
    ) -> None:
        assert client_address(connection("10.1.2.3", f"192.0.2.1, {nonsense}"), PROXIES) is None


class TestVersionSix:
    def test_one_customer_is_one_address(self) -> None:
        for end in ("1", "ffff:ffff:ffff:ffff", "2:3"):
            address = f"2001:db8:1:2:{end}" if end.count(":") == 3 else f"2001:db8:1:2::{end}"
            assert client_address(connection(address), ()) == "2001:db8:1:2::"
        assert client_address(connection("2001:db8:1:3::1"), ()) == "2001:db8:1:3::"

    def test_an_address_of_version_four_in_it_is_one(self) -> None:
        assert client_address(connection("::ffff:203.0.113.5"), ()) == "203.0.113.5"

    def test_proxies_may_have_it(self) -> None:
        assert client_address(connection("fd00::1", "198.51.100.7"), PROXIES) == "198.51.100.7"

    def test_a_proxy_that_is_seen_through_version_six_is_still_ours(self) -> None:
        """A listener on `::` shows every peer of version four so."""
        assert client_address(connection("::ffff:10.1.2.3", "198.51.100.7"), PROXIES) == "198.51.100.7"


@given(
    peer=st.ip_addresses().map(str) | st.text(max_size=10),
    chain=st.lists(
        st.ip_addresses().map(str) | st.text(alphabet=st.characters(max_codepoint=255), max_size=8)
    ),
)
def test_it_is_an_address_or_nothing_whatever_is_written(peer: str, chain: list[str]) -> None:
    found = client_address(connection(peer, ", ".join(chain)), PROXIES)
    assert found is None or str(ipaddress.ip_address(found)) == found


@given(written=st.lists(st.ip_addresses(v=4).map(str)), seen=st.ip_addresses(v=4, network="198.51.100.0/24"))
def test_nothing_that_a_client_writes_changes_whom_the_proxy_saw(
    written: list[str], seen: ipaddress.IPv4Address
) -> None:
    chain = connection("10.1.2.3", ", ".join([*written, str(seen)]))
    assert client_address(chain, PROXIES) == str(seen)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy.example.org", "10.0.0", "*"])
def test_proxies_that_are_none_are_named_as_a_fault(text: str) -> None:
    with pytest.raises(SetupProblem, match="OCMT_TRUSTED_PROXIES"):
        parse_networks([text])
