"""Asks providers over HTTP, guarded: https, no redirects, a bound on time and size, JSON objects only.

What cannot be had is ProviderUnavailable; its detail is for the operator's log and never holds what was sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocmt.identity.oidc.model import Provider, ProviderUnavailable, is_local, is_safe
from ocmt.platform.http import HttpClient

TIMEOUT = 10.0
MAX_BYTES = 512 * 1024


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    body: Any
    """The JSON value; None where it is none."""
    kind: str = ""
    """The media type that it says it has."""
    text: str = ""
    """The same in characters, where it is ASCII."""

    @property
    def ok(self) -> bool:
        """Whether it is an answer to the question."""
        return self.status == 200


class Fetcher:
    """The way to one provider."""

    def __init__(self, http: HttpClient, provider: Provider, *, timeout: float = TIMEOUT) -> None:
        self._http = http
        self._provider = provider
        self._timeout = timeout

    def unavailable(self, detail: str) -> ProviderUnavailable:
        """The error that says so, and the reason for the log."""
        return ProviderUnavailable(
            f"{self._provider.label} does not answer as it should: try again later.", detail=detail
        )

    def require_safe(self, url: object, what: str) -> str:
        """Raises: ProviderUnavailable for an address to which nothing may be sent."""
        if not isinstance(url, str) or not is_safe(url, local=is_local(self._provider)):
            raise self.unavailable(f"{what} is no https address")
        return url

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        """Raises: ProviderUnavailable."""
        return await self._ask("GET", url, headers, None)

    async def post(
        self, url: str, form: Mapping[str, str], *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Raises: ProviderUnavailable."""
        return await self._ask("POST", url, headers, form)

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None, form: Mapping[str, str] | None
    ) -> Reply:
        import aiohttp  # late, as HttpClient says

        self.require_safe(url, "the address")
        sent = {"accept": "application/json", "user-agent": "ocmt", **(headers or {})}
        path = url.partition("?")[0]
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.session().request(
                    method,
                    url,
                    headers=sent,
                    data=form,
                    # A redirect could lead our code and secret, or our trust, elsewhere.
                    allow_redirects=False,
                ) as response,
            ):
                body = await response.content.read(MAX_BYTES + 1)
                while len(body) <= MAX_BYTES and (more := await response.content.read(MAX_BYTES)):
                    body += more
        except TimeoutError as error:
            raise self.unavailable(f"{path}: no answer in {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self.unavailable(f"{path}: {type(error).__name__}") from error
        if len(body) > MAX_BYTES:
            raise self.unavailable(f"{path}: more than {MAX_BYTES} bytes")
        if response.status >= 500 or 300 <= response.status < 400:
            raise self.unavailable(f"{path}: status {response.status}")
        text = body.decode("ascii").strip() if body.isascii() else ""
        return Reply(response.status, _json(body), response.content_type, text)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
