"""Checks an ID token: signed by the issuer, for us, in answer to this attempt, and now (OpenID Connect
3.1.3.7).

joserfc checks the signature, Authlib the claims. Imported where it is needed: it takes a quarter of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from authlib.oidc.core.claims import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jws, jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

from ocmt.identity.oidc.model import ALGORITHMS, LEEWAY, Provider, TokenInvalid

_LONGEST = 64 * 1024


class UnknownKey(TokenInvalid):
    """It is signed with a key that is not among those: perhaps there are newer ones."""


def key_set(document: object) -> KeySet:
    """The issuer's public keys, those of other kinds left out; empty where there are none."""
    listed = document.get("keys") if isinstance(document, Mapping) else None
    keys: list[RSAKey | ECKey] = []
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        try:
            # Secrets (`oct`) are left out: in a public document they would be everybody's.
            if each.get("kty") == "RSA":
                keys.append(RSAKey.import_key(each))
            elif each.get("kty") == "EC":
                keys.append(ECKey.import_key(each))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return KeySet([*keys])


def verify(
    token: object,
    keys: KeySet,
    provider: Provider,
    *,
    issuer: str,
    nonce: str,
    access_token: object,
    now: datetime,
) -> dict[str, Any]:
    """The claims. Raises: UnknownKey, TokenInvalid; its detail says what is wrong, never the token."""
    if not isinstance(token, str) or len(token) > _LONGEST or not token.isascii():
        raise _invalid("no ID token")
    registry = jws.JWSRegistry(algorithms=sorted(ALGORITHMS), strict_check_header=False)
    registry.max_header_length = 8 * 1024  # some put a certificate there
    try:
        decoded = jwt.decode(token, keys, algorithms=sorted(ALGORITHMS), registry=registry)
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            {
                "iss": {
                    "essential": True,
                    "values": [each for each in (issuer, provider.also_issuer) if each],
                },
                "aud": {"essential": True, "value": provider.client_id},
            },
            {"nonce": nonce, "client_id": provider.client_id, "access_token": access_token},
        )
        claims.validate(now=int(now.timestamp()), leeway=int(LEEWAY.total_seconds()))
    except InvalidKeyIdError as error:
        raise UnknownKey(_SENTENCE, detail="signed with an unknown key") from error
    except JoseError as error:
        raise _invalid(f"{error.error} {getattr(error, 'claim', '')}".strip()) from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise _invalid(f"not an ID token: {type(error).__name__}") from error
    return dict(claims)


def verify_userinfo(token: str, keys: KeySet, provider: Provider, *, issuer: str) -> dict[str, Any]:
    """Return the claims of userinfo that its issuer has signed. Raises: UnknownKey, TokenInvalid.

    It has neither a nonce nor a time. Where it says who signed it, and for whom, that must be so.
    """
    if len(token) > _LONGEST:
        raise _invalid("userinfo is too long")
    registry = jws.JWSRegistry(algorithms=sorted(ALGORITHMS), strict_check_header=False)
    registry.max_header_length = 8 * 1024
    try:
        claims = jwt.decode(token, keys, algorithms=sorted(ALGORITHMS), registry=registry).claims
    except InvalidKeyIdError as error:
        raise UnknownKey(_SENTENCE, detail="userinfo is signed with an unknown key") from error
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _invalid(f"userinfo: {type(error).__name__}") from error
    audience = claims.get("aud", provider.client_id)
    named = audience if isinstance(audience, list) else [audience]
    if claims.get("iss", issuer) not in (issuer, provider.also_issuer) or provider.client_id not in named:
        raise _invalid("userinfo is not from this issuer, or not for us")
    return dict(claims)


_SENTENCE = "The provider's answer does not prove who you are: begin the sign-in again."


def _invalid(detail: str) -> TokenInvalid:
    return TokenInvalid(_SENTENCE, detail=detail)
