"""The HTTP client that everything outgoing shares."""

from __future__ import annotations

import aiohttp

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 120.0
TOTAL_SECONDS = 900.0


def client_session(
    *, total: float = TOTAL_SECONDS, silence: float = SILENCE_SECONDS, connections: int = 200
) -> aiohttp.ClientSession:
    """A session without cookies; the caller closes it.

    Seconds, which a request may tighten: 10 to connect, `silence` between two pieces of an answer, `total`
    for all of it. Proxies of the environment (HTTPS_PROXY, NO_PROXY) are honoured.
    """
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(
            total=total, connect=CONNECT_SECONDS * 2, sock_connect=CONNECT_SECONDS, sock_read=silence
        ),
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
    )
