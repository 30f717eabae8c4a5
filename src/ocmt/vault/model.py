"""Which items a vault may hold, and what a sealed one is bound to. Pure.

A data key is bound to its user and an item to its user, name and version, so that nothing can be moved or set
back unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from ocmt.errors import InvalidInput, OcmtError
from ocmt.platform import sealing

Kind = Literal["provider_key", "token", "note"]

ANTHROPIC_API_KEY = "anthropic_api_key"
OPENAI_API_KEY = "openai_api_key"
PROVIDERS = {ANTHROPIC_API_KEY: "anthropic", OPENAI_API_KEY: "openai"}
"""Items that the broker uses for model calls, and whose they are."""
KEPT_VERSIONS = 10
MOST_ITEMS = 200
_LARGEST = {"provider_key": 400, "token": 16 * 1024, "note": 64 * 1024}
"""Bytes of a value, by kind."""


class VaultDamaged(OcmtError):
    """An item does not open: the master key is another one, or the stored bytes were changed."""

    code = "vault_damaged"


@dataclass(frozen=True)
class VaultItem:
    """What may be shown of an item."""

    name: str
    kind: Kind
    version: int
    hint: str | None
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    used_by: str | None
    uses: int


@dataclass(frozen=True)
class KeptVersion:
    """A value before the present one."""

    version: int
    replaced_at: datetime


def checked_kind(name: str, kind: Kind | None) -> Kind:
    """What an item is. Raises InvalidInput where its name says that it is something else."""
    if name in PROVIDERS:
        if kind not in (None, "provider_key"):
            raise InvalidInput(f"{name} is the name of a provider's key.")
        return "provider_key"
    if kind == "provider_key":
        raise InvalidInput(f"The vault knows the provider keys {' and '.join(PROVIDERS)}.")
    return kind or "token"


def checked_value(name: str, kind: Kind, value: str) -> str:
    """The value as it will be kept. Raises InvalidInput, in words that say what is wrong."""
    if name in PROVIDERS:
        value = _CHECKS[name](value.strip())
    elif kind == "token":
        value = value.strip()
    if not value:
        raise InvalidInput("There is nothing to store.")
    if len(value.encode()) > _LARGEST[kind]:
        raise InvalidInput(f"This is too long: a {kind} has at most {_LARGEST[kind]} bytes.")
    return value


def hint_of(kind: Kind, value: str) -> str | None:
    """What may be shown of a value: its last four characters, where that gives nothing away."""
    return value[-4:] if kind != "note" and len(value) >= 12 else None


def _anthropic(key: str) -> str:
    if key.startswith("sk-ant-oat"):
        raise InvalidInput(
            "That is a sign-in token, not an API key. Make an API key in the Anthropic Console."
        )
    if not re.fullmatch(r"sk-ant-[A-Za-z0-9_-]{4,300}", key):
        raise InvalidInput("An Anthropic API key starts with sk-ant- and has no spaces in it.")
    return key


def _openai(key: str) -> str:
    if key.startswith("sk-ant-"):
        raise InvalidInput("That is a key of Anthropic's: store it as anthropic_api_key.")
    if not re.fullmatch(r"sk-[A-Za-z0-9_-]{16,300}", key):
        raise InvalidInput("An OpenAI API key starts with sk- and has no spaces in it.")
    return key


_CHECKS: dict[str, Callable[[str], str]] = {ANTHROPIC_API_KEY: _anthropic, OPENAI_API_KEY: _openai}


def unseal(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """Decrypt. Raises VaultDamaged."""
    try:
        return sealing.unseal(key, sealed, bound_to)
    except sealing.Damaged as error:
        raise VaultDamaged(
            "This item cannot be opened with the server's present key. It is still stored: do not delete it. "
            "Tell your administrator, who can restore the key from a backup."
        ) from error


def data_key_binding(owner_id: UUID) -> bytes:
    """What a wrapped data key of a user (or a group) is bound to."""
    return b"ocmt vault data key\x00" + owner_id.bytes


def item_binding(owner_id: UUID, name: str, version: int) -> bytes:
    """What an item's ciphertext is bound to: owner, item, version."""
    return b"ocmt vault item\x00" + owner_id.bytes + name.encode() + b"\x00" + version.to_bytes(8, "big")
