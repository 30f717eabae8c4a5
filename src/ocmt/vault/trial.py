"""Asks a provider whether a key works, by the cheapest request that takes one: the list of its models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ocmt.platform.http import HttpClient
from ocmt.vault.model import ANTHROPIC_API_KEY, OPENAI_API_KEY, PROVIDERS

TIMEOUT = 10.0
Verdict = Literal["works", "refused", "no_permission", "limited", "unreachable"]
WORDS: dict[Verdict, str] = {
    "works": "The provider takes this key.",
    "refused": "The provider refuses this key: it is wrong, or was revoked.",
    "no_permission": "The provider knows this key, and it may not be used for models.",
    "limited": "The provider takes no more from this key just now: a limit or its credit is used up.",
    "unreachable": "The provider does not answer just now. Try again later; that says nothing about the key.",
}


@dataclass(frozen=True)
class Trial:
    """Tries keys. The client belongs to the caller."""

    http: HttpClient
    anthropic_url: str
    openai_url: str

    async def of(self, name: str, key: str) -> Verdict:
        """What the provider of that item says of this key."""
        import aiohttp  # late, as HttpClient says

        url, headers = {
            ANTHROPIC_API_KEY: (
                f"{self.anthropic_url}/v1/models?limit=1",
                {"x-api-key": key, "anthropic-version": "2023-06-01"},
            ),
            OPENAI_API_KEY: (f"{self.openai_url}/v1/models", {"authorization": f"Bearer {key}"}),
        }[name]
        try:
            async with self.http.session().get(
                url,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                allow_redirects=False,
            ) as response:
                return _verdict(response.status)
        except (TimeoutError, aiohttp.ClientError):
            return "unreachable"


def can_be_tried(name: str) -> bool:
    """Whether there is a provider to ask."""
    return name in PROVIDERS


def _verdict(status: int) -> Verdict:
    match status:
        case 200:
            return "works"
        case 401:
            return "refused"
        case 403:
            return "no_permission"
        case 402 | 429:
            return "limited"
        case _:
            return "unreachable"
