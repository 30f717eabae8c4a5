"""Which items a vault may hold, and what a sealed one is bound to. Pure.

A data key is bound to its user and an item to its user, name and version, so that nothing can be moved or set
back unnoticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ocmt.errors import InvalidInput, OcmtError
from ocmt.platform import sealing

ANTHROPIC_API_KEY = "anthropic_api_key"


class VaultDamaged(OcmtError):
    """An item does not open: the master key is another one, or the stored bytes were changed."""

    code = "vault_damaged"


@dataclass(frozen=True)
class VaultItem:
    """What may be shown of an item."""

    name: str
    hint: str | None
    updated_at: datetime


def checked_value(name: str, value: str) -> str:
    """The value as it will be kept. Raises InvalidInput, in words that say what is wrong."""
    if name != ANTHROPIC_API_KEY:
        raise InvalidInput("The vault does not know an item of that name.")
    key = value.strip()
    if key.startswith("sk-ant-oat"):
        raise InvalidInput(
            "That is a sign-in token, not an API key. Make an API key in the Anthropic Console."
        )
    if not re.fullmatch(r"sk-ant-[A-Za-z0-9_-]{4,300}", key):
        raise InvalidInput("An Anthropic API key starts with sk-ant- and has no spaces in it.")
    return key


def unseal(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """Decrypt. Raises VaultDamaged."""
    try:
        return sealing.unseal(key, sealed, bound_to)
    except sealing.Damaged as error:
        raise VaultDamaged(
            "Your stored key cannot be opened any more. Delete it under Settings and enter it again."
        ) from error


def data_key_binding(user_id: UUID) -> bytes:
    """What a user's wrapped data key is bound to."""
    return b"ocmt vault data key\x00" + user_id.bytes


def item_binding(user_id: UUID, name: str, version: int) -> bytes:
    """What an item's ciphertext is bound to: user, item, version."""
    return b"ocmt vault item\x00" + user_id.bytes + name.encode() + b"\x00" + version.to_bytes(8, "big")
