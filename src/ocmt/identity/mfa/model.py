"""What codes look like, and when one is right. Pure, but for the randomness of new ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ocmt.platform.rate import Rate

STEP = 30
"""Seconds (RFC 6238)."""
DRIFT = 1
"""Steps that a clock may be off, either way."""
BACKUP_CODES = 8
CODES = Rate("codes of", count=10, period=timedelta(minutes=15), burst=10)
"""Codes that may be tried for one account; a right one wipes the slate."""

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without what is mistaken for something else; 32 of them: a code has 40 random bits."""
_TOTP = re.compile(r"\d{6}")
_BACKUP = re.compile(rf"[{_ALPHABET}]{{8}}")


@dataclass(frozen=True)
class MfaState:
    """Of one user."""

    totp: bool
    totp_since: datetime | None
    passkeys: int
    backup_codes: int
    demanded: bool
    """Whether the account must have a second factor."""


def new_secret() -> str:
    """160 random bits in base 32, as authenticator apps want them."""
    return base64.b32encode(secrets.token_bytes(20)).decode()


def new_backup_codes() -> list[str]:
    """`GSJD-32XC`, eight of them."""
    codes = ["".join(secrets.choice(_ALPHABET) for _ in range(8)) for _ in range(BACKUP_CODES)]
    return [f"{code[:4]}-{code[4:]}" for code in codes]


def plain(code: str) -> str:
    """A code as it was typed, without spaces, dashes and case."""
    return re.sub(r"[\s-]", "", code).upper()


def is_totp(code: str) -> bool:
    """Whether a plain code is one of an authenticator app by its looks."""
    return _TOTP.fullmatch(code) is not None


def is_backup(code: str) -> bool:
    """Whether a plain code is a backup code by its looks."""
    return _BACKUP.fullmatch(code) is not None


def matching_step(secret: str, code: str, now: datetime, *, after: int) -> int | None:
    """The time step whose code that is, later than the last one that was taken; None: it is of none.

    SHA-1, six digits: what every authenticator app can do.
    """
    from pyotp import TOTP

    generator, present = TOTP(secret), int(now.timestamp()) // STEP
    found = None
    for step in range(max(0, present - DRIFT), present + DRIFT + 1):  # always all of them: time tells nothing
        if hmac.compare_digest(generator.generate_otp(step), code) and step > after:
            found = step
    return found


def provisioning_uri(secret: str, *, account: str, issuer: str) -> str:
    """What the QR code says: https://github.com/google/google-authenticator/wiki/Key-Uri-Format."""
    from pyotp import TOTP

    return TOTP(secret).provisioning_uri(name=account, issuer_name=issuer)


def qr_code(text: str) -> str:
    """An SVG picture of its own."""
    from segno import make

    picture = io.BytesIO()
    make(text, error="m").save(
        picture, kind="svg", scale=4, border=2, dark="#000", light="#fff", xmldecl=False, nl=False
    )
    return picture.getvalue().decode()


def lookup(key: bytes, user_id: UUID, code: str) -> bytes:
    """By which the row of a backup code is found, so that one slow hash is computed and not eight.

    Keyed, and so of no use to who has the table alone.
    """
    return hmac.digest(key, b"backup code\x00" + user_id.bytes + code.encode(), hashlib.sha256)[:8]


def secret_binding(user_id: UUID) -> bytes:
    """What a sealed TOTP secret is bound to."""
    return b"ocmt totp secret\x00" + user_id.bytes
