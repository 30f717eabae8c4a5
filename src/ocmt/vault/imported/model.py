"""The formats of the old production's secrets, read only. Pure, but slow where Argon2 is.

A, its field cipher: `v{n}:iv:tag:ciphertext` in base64 (AES-256-GCM, IV of 16 bytes, no additional data),
and the older `iv:tag:ciphertext` in hexadecimal. B, its vault: a document whose key is Argon2id of a
password, and that opens as well by a seed, the first half of BIP 39's PBKDF2 of twelve words.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ocmt.errors import InvalidInput, Refused

FORMAT = "ocmt-vault"
WORDS = 12
_MOST_MEMORY = 256 * 1024
"""KiB that a document may ask Argon2 for; the old production asked for 64 MiB."""
_MOST_ITERATIONS, _MOST_LANES = 10, 16
_LARGEST = 8 * 1024 * 1024


class DoesNotOpen(Refused):
    """The password or the words are not those of this vault."""

    code = "vault_locked"


class NotAVault(InvalidInput):
    """The document is not one of the old production's, or it was damaged."""

    code = "vault_unreadable"


@dataclass(frozen=True)
class Document:
    """A vault of the old production, taken apart: sealed once under a password, once under twelve words."""

    salt: bytes
    memory: int
    """KiB."""
    iterations: int
    lanes: int
    by_password: tuple[bytes, bytes]
    """(nonce, ciphertext and tag)."""
    by_words: tuple[bytes, bytes] | None


@dataclass(frozen=True)
class Item:
    """What becomes an item of our own vault."""

    name: str
    kind: str
    value: str


def parse(document: object) -> Document:
    """Raises: NotAVault."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT or document.get("version") != 1:
        raise NotAVault("This is not a vault that can be read here.")
    try:
        kdf, sealed, recovery = document["kdf"], document["encryption"], document.get("recovery") or {}
        if kdf["algorithm"] != "argon2id" or kdf["version"] != 19 or sealed["algorithm"] != "aes-256-gcm":
            raise NotAVault("This vault was made in a way that is not known here.")
        memory, iterations, lanes = (int(kdf[name]) for name in ("memory", "iterations", "parallelism"))
        if not (
            8 * lanes <= memory <= _MOST_MEMORY
            and 1 <= iterations <= _MOST_ITERATIONS
            and 1 <= lanes <= _MOST_LANES
        ):
            raise NotAVault("This vault asks for more than is sensible to open it.")
        words = None
        if recovery.get("vault_ciphertext"):
            words = (
                _bytes(recovery["vault_nonce"], 12),
                _bytes(recovery["vault_ciphertext"]) + _bytes(recovery["vault_tag"], 16),
            )
        return Document(
            salt=_bytes(kdf["salt"]),
            memory=memory,
            iterations=iterations,
            lanes=lanes,
            by_password=(
                _bytes(sealed["nonce"], 12),
                _bytes(document["ciphertext"]) + _bytes(sealed["tag"], 16),
            ),
            by_words=words,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotAVault("This vault is damaged: a part of it is missing.") from error


def open_by_password(document: Document, password: str) -> dict[str, Any]:
    """The payload. Takes 0.2 s and 64 MiB. Raises: DoesNotOpen, NotAVault."""
    from argon2.exceptions import HashingError
    from argon2.low_level import Type, hash_secret_raw

    try:
        key = hash_secret_raw(
            password.encode(),
            document.salt,
            time_cost=document.iterations,
            memory_cost=document.memory,
            parallelism=document.lanes,
            hash_len=32,
            type=Type.ID,
            version=19,
        )
    except (HashingError, UnicodeEncodeError) as error:
        raise NotAVault("This vault is damaged: its key cannot be derived.") from error
    return _payload(key, document.by_password, "This is not the password of your vault.")


def open_by_words(document: Document, phrase: str) -> dict[str, Any]:
    """The payload. Raises: DoesNotOpen, NotAVault."""
    if document.by_words is None:
        raise NotAVault("This vault has no recovery words.")
    words = unicodedata.normalize("NFKD", phrase).lower().split()
    if len(words) != WORDS:
        raise DoesNotOpen(f"A recovery phrase has {WORDS} words; these are {len(words)}.")
    # BIP 39: https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki
    seed = hashlib.pbkdf2_hmac("sha512", " ".join(words).encode(), b"mnemonic", 2048)[:32]
    return _payload(seed, document.by_words, "These are not the words of your vault.")


def items_of(payload: Mapping[str, Any]) -> list[Item]:
    """What of a payload is of use in our own vault, and all of it once more as notes: nothing is lost."""
    items: dict[str, Item] = {}

    def add(name: str, kind: str, value: object) -> None:
        name = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:64] or "imported"
        if isinstance(value, str) and value.strip() and name not in items:
            items[name] = Item(name, kind, value)

    for entry in payload.get("credentials") or ():
        if not isinstance(entry, Mapping):
            continue
        provider, value = str(entry.get("provider") or "unknown"), entry.get("value")
        if entry.get("type") == "api_key" and provider in ("anthropic", "openai"):
            add(f"{provider}_api_key", "provider_key", value)
        add(f"imported_{provider}_{entry.get('id') or ''}", "token", value)
    integrations = payload.get("integrations")
    if isinstance(integrations, Mapping):
        for provider, tokens in integrations.items():
            add(f"imported_{provider}_sign_in", "token", json.dumps(tokens, ensure_ascii=False))
    text = json.dumps(payload, ensure_ascii=False, sort_keys=True)
    pieces = _pieces(text, 60_000)
    for number, piece in enumerate(pieces, 1):
        add("imported_vault" if len(pieces) == 1 else f"imported_vault_{number}", "note", piece)
    return list(items.values())


def decrypt_field(text: str, keys: Mapping[int, bytes]) -> bytes:
    """A column of the old production (format A). `keys`: 32 bytes by version. Raises: NotAVault,
    DoesNotOpen."""
    found = re.fullmatch(r"v(\d{1,4}):([^:]*):([^:]*):([^:]*)", text)
    try:
        if found:
            version, parts = int(found[1]), [_bytes(found[place]) for place in (2, 3, 4)]
        else:
            version, parts = 0, [bytes.fromhex(part) for part in text.split(":")]
        nonce, tag, ciphertext = parts
    except ValueError as error:
        raise NotAVault("This is not a secret of the old production.") from error
    if version not in keys:
        raise DoesNotOpen(f"The encryption key of version {version} is missing.")
    if len(nonce) != 16 or len(tag) != 16:
        raise NotAVault("This is not a secret of the old production.")
    try:
        return AESGCM(keys[version]).decrypt(nonce, ciphertext + tag, None)
    except InvalidTag as error:
        raise DoesNotOpen(f"This was sealed by another key than that of version {version}.") from error


def _payload(key: bytes, sealed: tuple[bytes, bytes], refusal: str) -> dict[str, Any]:
    try:
        plain = AESGCM(key).decrypt(*sealed, None)
    except InvalidTag as error:
        raise DoesNotOpen(refusal) from error
    try:
        payload = json.loads(plain)
    except ValueError as error:
        raise NotAVault("This vault opens, and what is in it cannot be read.") from error
    if not isinstance(payload, dict):
        raise NotAVault("This vault opens, and what is in it cannot be read.")
    return payload


def _bytes(text: object, length: int | None = None) -> bytes:
    """Standard base64. Raises ValueError."""
    if not isinstance(text, str) or len(text) > _LARGEST:
        raise ValueError("not base64")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if length is not None and len(data) != length:
        raise ValueError("wrong length")
    return data


def _pieces(text: str, size: int) -> list[str]:
    """Of at most so many bytes each, cut between characters."""
    pieces, begin, used = [], 0, 0
    for place, character in enumerate(text):
        width = len(character.encode("utf-8", "surrogatepass"))
        if used + width > size:
            pieces.append(text[begin:place])
            begin, used = place, 0
        used += width
    return [*pieces, text[begin:]]
