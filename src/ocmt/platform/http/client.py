"""The HTTP client that everything outgoing shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 120.0
TOTAL_SECONDS = 900.0


class HttpClient:
    """The sessions of one process, each opened for its first question.

    Late, for aiohttp takes a tenth of a second to import, which a service that scales to zero does without.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._for_calls: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """Without cookies; closed when the block ends."""
        if self._session is None:
            self._session = client_session()
        return self._session

    def session_for_model_calls(self) -> aiohttp.ClientSession:
        """A session with connections of its own, as many as there are calls.

        The broker bounds the calls of each user. A bound of all connections together would be one that some
        users can use up.
        """
        if self._for_calls is None:
            self._for_calls = client_session(connections=0)
        return self._for_calls

    async def __aenter__(self) -> Self:
        """Until the block ends."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what was opened."""
        for session in (self._session, self._for_calls):
            if session is not None:
                await session.close()


def client_session(
    *, total: float = TOTAL_SECONDS, silence: float = SILENCE_SECONDS, connections: int = 200
) -> aiohttp.ClientSession:
    """A session without cookies; the caller closes it.

    Seconds, which a request may tighten: 10 to connect, `silence` between two pieces of an answer, `total`
    for all of it. Proxies of the environment (HTTPS_PROXY, NO_PROXY) are honoured.
    """
    import aiohttp

    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(
            total=total, connect=CONNECT_SECONDS * 2, sock_connect=CONNECT_SECONDS, sock_read=silence
        ),
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        # What a server sends is never unpacked here: a few bytes could become gigabytes.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        trust_env=True,
    )
