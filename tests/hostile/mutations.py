"""What a hostile client makes of a genuine request, or of good frames, at every level: seeded."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.hostile import oddities
from tests.hostile.genuine import Door, Request
from tests.hostile.wire import frame

FORGED = "forged"
"""In every body that no valid signature is for."""
STALE = 330.0
"""Seconds."""


@dataclass(frozen=True)
class Case:
    """What is sent on one connection."""

    what: str
    """In words."""
    pieces: tuple[bytes, ...]
    genuine: Request | None = None
    """Where it is one, untouched: it has to be taken."""


def webhook(dice: random.Random, doors: Sequence[Door], host: str) -> Case:
    """One to the intake."""
    door = dice.choice(doors)
    level = dice.choice(
        ("none", "json", "proof", "proof", "parts", "parts", "parts", "bytes", "bytes", "behind")
    )
    if level == "none":
        request = door.request(host)
        return Case(f"{door.channel} untouched", _cut(dice, request.wire()), request)
    if level == "json":
        _, payload = door.payload()
        body = _odd_json(dice, payload)
        request = door.request(host, body=body, told=_text(dice) if dice.random() < 0.3 else "")
        return Case(f"{door.channel} json", _cut(dice, request.wire()))
    if level == "proof":
        return Case(f"{door.channel} proof", _cut(dice, _forged(dice, door, host).wire()))
    request = door.request(host)
    if level == "parts":
        return Case(f"{door.channel} parts", _cut(dice, odd_parts(dice, request).wire()))
    if level == "bytes":
        return Case(f"{door.channel} bytes", _cut(dice, odd_bytes(dice, request.wire())))
    second = (
        odd_bytes(dice, dice.choice(doors).request(host).wire()) if dice.random() < 0.7 else request.wire()
    )
    return Case(f"{door.channel} and one behind it", _cut(dice, request.wire() + second))


def upgrade(dice: random.Random, good: bytes, behind: bytes) -> Case:
    """One to the socket. `good`: a handshake; `behind`: another request."""
    level = dice.choice(("none", "parts", "parts", "parts", "bytes", "bytes", "behind", "after"))
    head, _, rest = good.partition(b"\r\n")
    method, target, version = head.split(b" ")
    lines = [line.split(b": ", 1) for line in rest.split(b"\r\n") if line]
    request = Request(target, [(name, value) for name, value in lines], b"", method, version)
    if level == "none":
        return Case("upgrade untouched", _cut(dice, good))
    if level == "parts":
        return Case("upgrade parts", _cut(dice, odd_parts(dice, request).wire()))
    if level == "bytes":
        return Case("upgrade bytes", _cut(dice, odd_bytes(dice, good)))
    if level == "behind":
        return Case(
            "upgrade and something behind it", _cut(dice, good + dice.choice((behind, odd_frames(dice))))
        )
    return Case("upgrade behind a request", _cut(dice, behind + good))


def odd_parts(dice: random.Random, request: Request) -> Request:
    """Some of its parts are others."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        what = dice.randrange(12)
        headers = list(request.headers)
        at = dice.randrange(len(headers)) if headers else 0
        if what == 0 and headers:
            del headers[at]
        elif what == 1 and headers:
            headers.insert(dice.randrange(len(headers)), headers[at])
        elif what == 2 and headers:
            name, value = headers[at]
            headers[at] = (name, odd_bytes(dice, value))
        elif what == 3 and headers:
            name, value = headers[at]
            headers[at] = (odd_bytes(dice, name), value)
        elif what == 4:
            length = dice.choice((*oddities.LENGTHS, b"%d" % max(0, len(request.body) + dice.randint(-9, 9))))
            request = request.having(b"Content-Length", *([length] * dice.choice((1, 1, 2))))
            continue
        elif what == 5:
            body = dice.choice(oddities.CHUNKS)
            request = replace(request, body=body).having(
                b"Transfer-Encoding", dice.choice((b"chunked", b"Chunked"))
            )
            if dice.random() < 0.7:
                request = request.having(b"Content-Length")
            continue
        elif what == 6:
            request = replace(request, target=dice.choice(oddities.TARGETS)(request.target))
        elif what == 7:
            request = replace(request, method=dice.choice(oddities.METHODS))
        elif what == 8:
            request = replace(request, version=dice.choice(oddities.VERSIONS))
        elif what == 9:
            body = gzip.compress(request.body or b"x" * 10_000)
            request = replace(request, body=body).having(b"Content-Length", b"%d" % len(body))
            request = request.having(
                b"Content-Encoding", dice.choice((b"gzip", b"GZIP", b"x-gzip", b"identity"))
            )
            continue
        else:
            headers.insert(dice.randint(0, len(headers)), dice.choice(oddities.HEADERS))
        request = replace(request, headers=headers)
    return request


def odd_bytes(dice: random.Random, data: bytes) -> bytes:
    """Some of the bytes are others."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        # The beginning is where the structure is.
        end = len(changed) if dice.random() < 0.5 else min(len(changed), 200)
        at = dice.randint(0, end)
        what = dice.randrange(7)
        if what == 0 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif what == 1 and at < len(changed):
            changed[at] = dice.randrange(256)
        elif what == 2:
            changed[at:at] = dice.choice(oddities.BYTES)
        elif what == 3:
            del changed[at : at + dice.choice((1, 1, 2, 10, 100))]
        elif what == 4:
            piece = changed[at : at + dice.choice((1, 10, 100))]
            changed[at:at] = piece * dice.choice((1, 2, 20))
        elif what == 5:
            changed[at : at + 4] = dice.choice(oddities.BYTES)
        elif dice.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def odd_frames(dice: random.Random) -> bytes:
    """Frames of a client, most of them wrong."""
    made = b""
    for _ in range(dice.choice((1, 2, 3, 5))):
        made += _odd_frame(dice, dice.randrange(16), dice.choice(oddities.PAYLOADS))
    return made


def _odd_frame(dice: random.Random, kind: int, payload: bytes) -> bytes:
    match kind:
        case 0:
            return frame(dice.randrange(16), payload, reserved=dice.randrange(8))
        case 1:
            return frame(dice.choice((1, 2)), payload, masked=False)
        case 2:
            return frame(0, payload)
        case 3:
            return frame(1, payload, final=False) + frame(dice.choice((0, 1)), payload)
        case 4:
            return frame(dice.choice((8, 9, 10)), payload, final=False)
        case 5:
            return frame(dice.choice((9, 10)), payload)
        case 6:
            return frame(8, dice.choice(oddities.CLOSES))
        case 7:
            # Lengths that are not the shortest way to write them, or more than there may be.
            size = dice.choice((1 << 63, 25 * 1024**2 + 1, 5, 0))
            return bytes([0x82, 0xFF]) + size.to_bytes(8, "big") + b"\x00" * dice.choice((3, 9, 10))
        case 8:
            return bytes([0x82, 0xFE]) + dice.randbytes(2) + b"\x00" * 10
        case 9:
            return dice.randbytes(dice.choice((1, 2, 13, 200)))
        case 10 | 11:
            return odd_bytes(dice, frame(1, payload[:200]))
        case 12 | 13:
            return frame(1, b"good")
        case _:
            return frame(dice.choice((1, 2)), payload)


def _forged(dice: random.Random, door: Door, host: str) -> Request:
    """With a proof that is none."""
    body = json.dumps({**door.payload()[1], "note": FORGED}).encode()
    given = door.request(host, body=body, age=dice.choice((STALE, -STALE, 1e6)) if door.stamp else 0)
    door.signed.discard(body)
    proof = dict(given.headers)[door.proof]
    what = dice.randrange(8)
    if door.stamp is not None and what == 0:
        return given  # genuine, and too old or too new
    if door.stamp is not None and what == 1:
        fresh = door.request(host)  # a time that another one was signed with
        return given.having(door.stamp, dict(fresh.headers)[door.stamp])
    if door.stamp is not None and what == 2:
        return given.having(door.stamp, dice.choice(oddities.STAMPS))
    if what == 3:
        return given.having(door.proof)
    if what == 4:
        return given.having(door.proof, dice.choice(oddities.PROOFS))
    if what == 5:
        other = door.request(host)
        if door.channel != "telegram":  # there it is the same for all of them
            return given.having(door.proof, dict(other.headers)[door.proof])
    turned = bytearray(proof)
    at = dice.randrange(len(turned))
    turned[at] = turned[at] ^ 1 if turned[at] ^ 1 not in b", \x7f" else ord("z")
    if bytes(turned) == proof:
        turned.append(ord("z"))
    return given.having(door.proof, bytes(turned))


def _odd_json(dice: random.Random, payload: Any) -> bytes:
    """Something in it is something else."""
    text = json.dumps(payload)
    for _ in range(dice.choice((1, 1, 2, 3))):
        payload = _odd_value(dice, payload)
    what = dice.randrange(8)
    if what == 0:
        return odd_bytes(dice, text.encode())
    if what == 1:
        return b"[" * dice.choice((10, 5_000, 200_000))
    if what == 2:
        return text.encode(dice.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le")))
    if what == 3:
        return text.replace('"', '"a": 1, "', 1).encode() if text.startswith("{") else text.encode()
    return json.dumps(payload, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")


def _odd_value(dice: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        if dice.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: _odd_value(dice, value[key])}
    if isinstance(value, list) and value and dice.random() < 0.7:
        at = dice.randrange(len(value))
        return [*value[:at], _odd_value(dice, value[at]), *value[at + 1 :]]
    deep: Any = "x"
    for _ in range(100):
        deep = {"a": [deep]}
    shapes: tuple[Any, ...] = (
        None,
        True,
        False,
        {},
        [],
        [None],
        {"": ""},
        {"\x00": "\x00"},
        deep,
        _text(dice),
    )
    return dice.choice((*oddities.NUMBERS, *oddities.TEXTS, *shapes))


def _text(dice: random.Random) -> str:
    return "".join(
        chr(dice.choice((dice.randrange(32, 127), dice.randrange(160, 256))))
        for _ in range(dice.randrange(300))
    )


def _cut(dice: random.Random, data: bytes) -> tuple[bytes, ...]:
    """In pieces, at times."""
    if dice.random() < 0.6 or len(data) < 2:
        return (data,)
    cuts = sorted(dice.randrange(1, len(data)) for _ in range(dice.choice((1, 2, 5))))
    return tuple(
        data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start != end
    )
