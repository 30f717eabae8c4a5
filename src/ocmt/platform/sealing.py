"""Authenticated encryption of small things at rest: `0x01 | nonce (12 bytes) | AES-256-GCM ciphertext`.

`bound_to` says what and whose a sealed thing is, so that it opens in its own place only and cannot be moved
or set back unnoticed.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORMAT = b"\x01"
_NONCE = 12


class Damaged(Exception):
    """A sealed thing does not open: another key, another place, or changed bytes."""


def new_key() -> bytes:
    """256 random bits."""
    return AESGCM.generate_key(256)


def seal(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    """Encrypt, bound to what `bound_to` names."""
    nonce = os.urandom(_NONCE)
    return _FORMAT + nonce + AESGCM(key).encrypt(nonce, plain, bound_to)


def unseal(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """Decrypt. Raises Damaged."""
    # A foreign format fails like any other changed byte.
    nonce = sealed[1 : 1 + _NONCE] if sealed[:1] == _FORMAT else b""
    try:
        return AESGCM(key).decrypt(nonce, sealed[1 + _NONCE :], bound_to)
    except (InvalidTag, ValueError) as error:
        raise Damaged from error
