"""What stands where something else belongs: what parsers have got wrong, and their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_CONTROLS = (b"\x00", b"\x01", b"\x08", b"\x1b[2J", b"\x7f", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t")
_NO_UTF8 = (b"\x80", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")
_MARKS = (b":", b";", b",", b'"', b"\\", b"{", b"}", b"[", b"%00", b"%ff", b"%2e%2e%2f")
BYTES = (*_CONTROLS, *_NO_UTF8, *_MARKS, b"A" * 300, "é".encode(), "😀".encode())

_NO_LENGTHS = (
    b"-1",
    b"+5",
    b"5, 5",
    b"5,6",
    b"5 5",
    b"0x10",
    b"1e3",
    b"",
    b" ",
    b"\xd9\xa3",
    b"0" * 19 + b"5",
)
_LENGTHS = (b"0", b"1048577", b"2147483648", b"9223372036854775807", b"18446744073709551616", b"9" * 400)
LENGTHS = (*_NO_LENGTHS, *_LENGTHS)

_SIZES = (b"-1", b"0x5", b"5 ", b"f" * 16, b"f" * 17, b"5" * 5_000, b"", b"5;x=y", b"5;" + b"e" * 5_000)
_BODIES = (b"0\r\n\r\n", b"\r\n", b"", b"5\nhello\n0\n\n", b"5\r\nhelloXX0\r\n\r\n", b"0\r\nx: y\r\n\r\n")
CHUNKS = (
    *(size + b"\r\nhello\r\n0\r\n\r\n" for size in (b"5", *_SIZES)),
    *(*_BODIES, b"1\r\na\r\n" * 50 + b"0\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n"),
)

_VALUES: Mapping[bytes, tuple[bytes, ...]] = {
    b"Transfer-Encoding": (b"chunked", b"gzip, chunked", b"chunked, identity", b"xchunked"),
    b"Content-Encoding": (b"gzip", b"deflate", b"br", b"identity, gzip", b"", b"\xff"),
    b"Expect": (b"100-continue", b"200-ok", b"100-continue, 100-continue"),
    b"Connection": (b"close", b"keep-alive", b"upgrade", b"Upgrade, close", b"host"),
    b"Upgrade": (b"websocket", b"h2c", b"websocket, h2c", b"WebSocket", b""),
    b"HTTP2-Settings": (b"AAMAAABkAARAAAAAAAIAAAAA",),
    b"Host": (b"", b"evil.example", b"[::1", b"a b", b"localhost:99999999", b"\x00"),
    b"Origin": (b"null", b"http://evil.example", b"", b"file://", b"\xff"),
    b"Cookie": (b"", b"ocmt=", b"ocmt=x; ocmt=y", b"=;=;=", b"ocmt=\xff", b"a" * 9_000),
    b"Authorization": (b"Bearer", b"Bearer x", b"Basic Og==", b"Bearer \xff\xfe"),
    b"X-Forwarded-For": (b"::1, 127.0.0.1", b"x" * 1_000, b",,,,"),
    b"Sec-WebSocket-Version": (b"8", b"13, 8", b"", b"+13"),
    b"Sec-WebSocket-Key": (b"", b"short", b"dGhlIHNhbXBsZSBub25jZQ==\t", b"=" * 24),
    b"Sec-WebSocket-Extensions": (b"permessage-deflate", b"x; y=" + b"z" * 900),
    b"Sec-WebSocket-Protocol": (b"chat", b"a, a, \xff"),
    b"Sec-Fetch-Site": (b"cross-site", b"same-origin"),
    b"X": (b"\x00", b"\x0b", b"\x7f", b"a\r\n folded", b"a\r\n\tfolded", b"a\rb", b"a\nb", b"y" * 5_000),
}
_NAMES = (b"", b" ", b"a b", b"a:b", b"\xff", b"\x00", b"x" * 5_000, b"Content-Length ")
HEADERS = (
    *((name, value) for name, values in _VALUES.items() for value in values),
    *((name, b"x") for name in _NAMES),
)

TARGETS: tuple[Callable[[bytes], bytes], ...] = (
    lambda path: b"http://evil.example" + path,
    lambda path: b"https://[::1" + path,
    lambda path: b"//" + path,
    lambda path: path.lstrip(b"/"),
    lambda path: path + b"/",
    lambda path: path + b"?" + b"a=b&" * 500,
    lambda path: path + b"#fragment",
    lambda path: path + b"%00",
    lambda path: path + b"/%ff%fe",
    lambda path: path + b"/\xff",
    lambda path: path + b"/../../agent/channels",
    lambda path: path.replace(b"/", b"/./"),
    lambda path: path.replace(b"/", b"%2f"),
    lambda path: path.upper(),
    lambda path: path + b"a" * 3_000,
    lambda path: path[:-1],
    lambda path: path + b"\x00",
    lambda path: path + b" ",
    lambda path: path + b" HTTP/1.1 ",
    lambda path: b"*",
    lambda path: b"",
    lambda path: b"localhost:443",
    lambda path: b"/webhooks/" + b"%F0%9F%98%80" * 20,
)

_NO_METHODS = (b"post", b"", b"P\x00T", b"M" * 90, b"PRI")
METHODS = (*_NO_METHODS, b"GET", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE")
VERSIONS = (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"", b"HTTP/1.1 ", b"SIP/2.0")

STAMPS = (b"", b"-1", b"+5", b" 5", b"1.5", b"1e9", b"0x5", b"inf", b"nan", b"\xb2", b"9" * 500)
PROOFS = (b"", b"v0=", b"v1,", b"sha256=", b"\xe9" * 64, b"0" * 9_000)

NUMBERS = (0, -1, 1.5, 2**31, 2**63, 10**25, -(10**4000), 1e308, float("inf"), float("nan"))
_NAMED = ("<script>", "<@U0LAN0Z89>", "@ocmt_bot")
TEXTS = ("", " ", "\x00", "\ud800", "\udc00\ud800", "x" * 70_000, "😀" * 300, *_NAMED)

PAYLOADS = (b"", b"hello", b"x" * 126, b"\xff\xfe", b"\xed\xa0\x80", b"y" * 70_000, b"{}")
"""Of WebSocket frames; and of those that close:"""
CLOSES = (b"", b"\x03", b"\x03\xe8", b"\x03\xec", b"\x00\x00", b"\xff\xff", b"\x03\xe8\xff")
