"""The public address, and what follows from it: whose page may write, and what the cookie is called.

Pure, and its own file because the middleware, the routes and the sign-in links must agree on it. A browser
sends our cookie with requests that other pages make; the Origin header tells whose page it was.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ocmt.errors import SetupProblem

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HOW_TO_WRITE_IT = (
    "Write the public address (OCMT_PUBLIC_URL) as scheme and host, like https://agents.example.org."
)


@dataclass(frozen=True)
class PublicAddress:
    """Where users reach us. Made by `parse`, which refuses what could not be safe."""

    url: str
    """Without a slash at its end."""
    secure: bool
    origins: frozenset[str]
    """The origins of our own pages, as browsers write them."""
    local: bool = False
    """Whether only people at this machine can reach us: both the address and the listener are loopback."""

    @classmethod
    def parse(cls, url: str, *, listener: str | None = None, behind_proxy: bool = False) -> PublicAddress:
        """Read the public address of a server that listens on the address `listener` (None: not known).

        `behind_proxy`: the operator says that what reaches the listener has passed through a proxy or a port
        mapping of this machine. Raises: SetupProblem for what is no plain address, for http where others
        could listen in, and for a listener that other machines reach under a loopback address.
        """
        try:
            parts = urlsplit(url.strip().rstrip("/"))
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SetupProblem(_HOW_TO_WRITE_IT, detail=str(error)) from error
        if not host or not host.isascii() or parts.scheme not in _DEFAULT_PORTS or parts.username is not None:
            raise SetupProblem(_HOW_TO_WRITE_IT)
        if parts.path or parts.query or parts.fragment:
            raise SetupProblem(_HOW_TO_WRITE_IT)
        loopback = is_loopback(host)
        if parts.scheme == "http" and not loopback:
            raise SetupProblem(
                "Sign-in over plain http is safe only on this machine: put TLS in front, and OCMT_PUBLIC_URL "
                f"to https://{host}; or use http://localhost."
            )
        listens_here = listener is not None and is_loopback(listener)
        if loopback and listener is not None and not listens_here and not behind_proxy:
            raise SetupProblem(
                f"OCMT would listen on {listener or 'every address'}, which other machines can reach, but "
                f"its public address is {url}. Set OCMT_PUBLIC_URL to the https address that people use, or "
                "listen on 127.0.0.1. If only a proxy or a container's port mapping on this machine reaches "
                "OCMT, set OCMT_BEHIND_PROXY=true."
            )
        own = f"[{host}]" if ":" in host else host
        hosts = {own, *(_LOOPBACK_HOSTS if loopback else ())}
        shown_port = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
        return cls(
            url=f"{parts.scheme}://{own}{shown_port}",
            secure=parts.scheme == "https",
            origins=frozenset(f"{parts.scheme}://{each}{shown_port}" for each in hosts),
            local=loopback and listens_here,
        )

    @property
    def hosts(self) -> frozenset[str]:
        """What the Host header says in requests to our own address."""
        return frozenset(urlsplit(origin).netloc for origin in self.origins)

    @property
    def host(self) -> str:
        """The host alone, without port: what passkeys are bound to."""
        return urlsplit(self.url).hostname or ""

    @property
    def cookie(self) -> str:
        """The session cookie's name. `__Host-` binds it to https, this host and / (RFC 6265bis 4.1.3.2)."""
        return "__Host-ocmt" if self.secure else "ocmt"

    def sign_in_link(self, token: str) -> str:
        """The token rides in the fragment, which browsers send to nobody and servers never log."""
        return f"{self.url}/sign-in#token={token}"

    def admits_write(self, origin: str | None, fetch_site: str | None) -> bool:
        """Whether a request that carries the cookie and changes something comes from a page of ours.

        `fetch_site` (Sec-Fetch-Site, which no page can forge) counts only where there is no Origin.
        """
        if origin is None:
            return fetch_site == "same-origin"
        return origin in self.origins

    def admits_sign_in(self, origin: str | None, fetch_site: str | None) -> bool:
        """Whether a request to sign in may come from where it comes from. Programs send neither header.

        Another site's page could otherwise sign its visitor in as somebody else (login CSRF).
        """
        return (origin is None and fetch_site is None) or self.admits_write(origin, fetch_site)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
