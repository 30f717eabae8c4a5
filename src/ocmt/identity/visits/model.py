"""The agents' own host name, and what a sign-in there consists of. Pure.

What an agent shows is on a host name of its own, so that a browser keeps it apart from the platform: another
origin, and cookies that neither side ever sees of the other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from ocmt.errors import OcmtError, SetupProblem
from ocmt.identity.origin import PublicAddress, is_loopback

GATEWAY = "/agent/gateway"
"""The beginning of every path that is served there."""
SIGN_IN = f"{GATEWAY}/sign-in"
BEGIN = f"{SIGN_IN}/begin"

TICKET_LIFETIME = timedelta(minutes=1)
MOST_VISITS = 5
"""Of one login session, tickets included; older ones go."""

_HOW_TO_WRITE_IT = (
    "Write OCMT_AGENT_URL as scheme and host, like https://openclaw.example.net: a host name that only OCMT "
    "uses, and only for this."
)
_PORTS = {"http": 80, "https": 443}
_BINDING = re.compile(r"[0-9a-f]{64}")


class Elsewhere(OcmtError):
    """What was asked for is at the agents' own host name."""

    code = "elsewhere"
    status = 421


@dataclass(frozen=True)
class AgentAddress(PublicAddress):
    """The agents' own host name. Made by `beside`, which refuses what would not keep the two apart."""

    @property
    def cookie(self) -> str:
        """The cookie's name, unlike that of the session."""
        return "__Host-ocmt-agent" if self.secure else "ocmt-agent"

    @classmethod
    def beside(cls, url: str, public: PublicAddress) -> AgentAddress:
        """Read OCMT_AGENT_URL, for an installation at that public address. Raises: SetupProblem."""
        try:
            parts = urlsplit(url.strip().rstrip("/"))
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SetupProblem(_HOW_TO_WRITE_IT, detail=str(error)) from error
        scheme = "https" if public.secure else "http"
        if re.search(r"[\x00-\x20\x7f]", url.strip()) or not host or not host.isascii():
            raise SetupProblem(_HOW_TO_WRITE_IT)
        if parts.scheme not in _PORTS or "@" in parts.netloc:
            raise SetupProblem(_HOW_TO_WRITE_IT)
        if parts.path or parts.query or parts.fragment or not re.fullmatch(r"[a-z0-9.:-]+", host):
            raise SetupProblem(_HOW_TO_WRITE_IT)
        if parts.scheme != scheme:
            raise SetupProblem(
                f"OCMT_AGENT_URL begins with {parts.scheme}:// and OCMT_PUBLIC_URL with {scheme}://. "
                f"Write both with {scheme}://."
            )
        host = host.rstrip(".")
        local = is_loopback(host) or host.endswith(".localhost")
        if scheme == "http" and not local:
            raise SetupProblem(
                "OCMT_AGENT_URL with http:// is safe only on this machine: put TLS in front of OCMT, and "
                f"write https://{host}; or use a name below localhost, like http://agents.localhost."
            )
        # Browsers send a host's cookies to each of its ports, and loopback's names are one host to us.
        if host == public.host.rstrip(".") or (is_loopback(public.host) and is_loopback(host)):
            raise SetupProblem(
                f"OCMT_AGENT_URL and OCMT_PUBLIC_URL are on the same host ({host}). Give OCMT_AGENT_URL a "
                "host name of its own. Another port is not enough, because browsers share cookies between "
                "ports."
            )
        own = f"[{host}]" if ":" in host else host
        shown = f"{scheme}://{own}" + ("" if port in (None, _PORTS[scheme]) else f":{port}")
        return cls(url=shown, secure=scheme == "https", origins=frozenset({shown}), local=local)

    def serves(self, host_header: str) -> bool:
        """Return whether a request with this Host header is for it.

        The port does not count: a proxy may leave it out, and the name is no other part's.
        """
        name = re.sub(r":\d*$", "", host_header.strip().lower()).rstrip(".")
        own = self.host.rstrip(".")
        return name in (own, f"[{own}]")


def binding_of(secret: str) -> str:
    """What the public side gets to know of the secret of the browser that asks for a ticket."""
    return hashlib.sha256(b"agent visit " + secret.encode("utf-8", "surrogatepass")).hexdigest()


def is_binding(text: str) -> bool:
    """Return whether this may be one."""
    return _BINDING.fullmatch(text) is not None
