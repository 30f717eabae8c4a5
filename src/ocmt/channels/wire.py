"""What the adapters share: one bounded call of a vendor's API, and careful looks into what came back.

Nothing here raises for what the other side sent: an absent or odd thing reads as nothing.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ocmt.channels.base import SendFailed
from ocmt.errors import InvalidInput, Unauthenticated, Unavailable
from ocmt.platform.internet import is_public

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

TOLERANCE = 300.0
"""Seconds that a signed timestamp may be off, either way."""
WRONG_SIGNATURE = "The signature of this webhook is missing or wrong."
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Reply:
    """What came of a call."""

    status: int = 0
    """0: there was no answer, see `problem`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Found in any case."""
    content: bytes | None = None
    """None: more than was wanted, or no answer."""
    problem: str = ""
    """What went wrong, by the name of the client's error alone: its text may hold the address."""
    uncertain: bool = False
    """It may have been taken all the same."""

    def check(self, label: str) -> None:
        """Raises: SendFailed where there was no answer. `label`: whose API it is."""
        if self.problem:
            words = "does not answer" if self.uncertain else "can not be reached"
            raise SendFailed(f"{label} {words}.", uncertain=self.uncertain, detail=self.problem)


async def ask(
    session: Callable[[], aiohttp.ClientSession],
    verb: str,
    url: str | URL,
    *,
    seconds: float,
    most: int,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One call, without redirects. An answer of more than `most` bytes is not read to its end.

    `url`: as text, it is encoded already. Gives back what went wrong instead of raising it, so that no error
    has the client's, with the address, as its context.
    """
    import aiohttp  # late, as HttpClient says
    from yarl import URL

    times = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
    try:
        address = URL(url, encoded=True) if isinstance(url, str) else url
        async with session().request(
            verb, address, json=body, headers=headers, allow_redirects=False, timeout=times
        ) as response:
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > most:
                    response.close()
                    return Reply(response.status, response.headers)
            return Reply(response.status, response.headers, bytes(content))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError) as error:
        return Reply(problem=type(error).__name__)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        return Reply(problem=type(error).__name__, uncertain=True)


class NotPublic(OSError):
    """A name led to an address that is not on the public internet: no connection was made."""

    def __init__(self) -> None:
        super().__init__("not on the public internet")


def public_session() -> aiohttp.ClientSession:
    """For an address that a user gave: it connects to public ones only. The caller closes it.

    Judged is the very address that is connected to, so that a name cannot lead to another one the next
    moment. Proxies of the environment are not used: they would look the name up themselves. What is refused
    comes as aiohttp.ClientConnectorError with NotPublic as its `os_error`.
    """
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=_socket_to_public),
        cookie_jar=aiohttp.DummyCookieJar(),
        # What a server sends is never unpacked here: a few bytes could become gigabytes.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        trust_env=False,
    )


def _socket_to_public(address: tuple[Any, ...]) -> socket.socket:
    """`address`: as socket.getaddrinfo gives it."""
    family, kind, protocol, _, where = address
    if not is_public(ip_address(where[0])):
        raise NotPublic
    return socket.socket(family, kind, protocol)


@contextmanager
def setting_up() -> Iterator[None]:
    """While something is registered at a vendor: what it refuses is the user's to mend.

    Raises: InvalidInput, Unavailable instead of SendFailed.
    """
    try:
        yield
    except SendFailed as error:
        if error.permanent:
            raise InvalidInput(error.message, detail=error.detail) from None
        raise Unavailable(error.message, detail=error.detail, retry_after=error.retry_after) from None


@contextmanager
def removing() -> Iterator[None]:
    """While something is removed at a vendor: what it refuses is gone, or not ours any more.

    Raises: Unavailable instead of a SendFailed that is not permanent.
    """
    try:
        yield
    except SendFailed as error:
        if not error.permanent:
            raise Unavailable(error.message, detail=error.detail, retry_after=error.retry_after) from None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; None where it is not said in seconds."""
    return number_of(headers.get("retry-after", ""), 6)


def number_of(text: str, digits: int) -> float | None:
    """A plain number of at most so many digits, else None."""
    return float(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def moment_of(text: str) -> float:
    """A signed timestamp as it stands in a header. Raises: Unauthenticated where it is none."""
    moment = number_of(text, 12)
    if moment is None:
        raise Unauthenticated(WRONG_SIGNATURE)
    return moment


def check_moment(moment: float, now: datetime) -> None:
    """Raises: Unauthenticated for a time that is more than TOLERANCE away: it is a replay."""
    if abs(now.timestamp() - moment) > TOLERANCE:
        raise Unauthenticated("This webhook is too old, or comes from the future.")


def json_of(body: bytes) -> Any:
    """What stands in it; None where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def object_of(body: bytes) -> Mapping[str, Any]:
    """The body where it is a JSON object, else nothing."""
    data = json_of(body)
    return data if isinstance(data, dict) else {}


def part(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under that key, else nothing."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def words(data: Mapping[str, Any], key: str) -> str:
    """The text under that key, else nothing."""
    value = data.get(key)
    return value if isinstance(value, str) else ""
