"""Response headers: the one place that decides which bytes may become one. Pure.

A line feed inside a header's value ends the header for every browser, and what follows is a header of
somebody else's choosing (a cookie, for instance). Therefore a value reaches a response only through `safe`,
`fields` or one of the readers below, and `checked` looks at every response once more on its way out.
`tests/platform/test_headers.py` searches the sources for headers that are set in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from ocmt.errors import OcmtError

MOST_VALUE = 8 * 1024
"""Bytes of one header's value. Proxies accept no more in one line."""
MOST_HEADERS = 32 * 1024
"""Bytes of all headers of one response together."""
MOST_FILE_NAME = 255

DATA = "application/octet-stream"

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_NOT_A_NAME = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_NOT_A_VALUE = re.compile(rb"[^\x20-\x7e]")
_OURS_ALONE = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers about the connection, which only the server itself writes. Source: RFC 9110 7.6.1."""
_MEDIA_TYPE = re.compile(
    r"([a-z0-9][a-z0-9.+_-]{0,60}/[a-z0-9][a-z0-9.+_-]{0,80})"
    r"(?:[ \t]*;[ \t]*charset=\"?([a-z0-9_-]{1,20})\"?)?",
    re.IGNORECASE,
)


class UnsafeHeader(OcmtError):
    """A header would contain bytes that do not belong in one."""

    code = "internal"
    status = 500


def safe(value: str | bytes) -> str:
    """Return the value unchanged if it may be a header's. Raises: UnsafeHeader.

    Visible ASCII and blanks only: no control characters (CR, LF, NUL, DEL, tabs and obs-fold included),
    nothing that is not ASCII, and at most MOST_VALUE bytes.
    """
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    if len(raw) > MOST_VALUE or _NOT_A_VALUE.search(raw):
        raise UnsafeHeader("A header of this answer has a value that no header may have.")
    return raw.decode("ascii")


def fields(headers: Mapping[str, str]) -> dict[str, str]:
    """Return these headers, each name and value of which may be a header's. Raises: UnsafeHeader."""
    for name in headers:
        _check_name(name.encode("utf-8", "surrogatepass"))
    return {name: safe(value) for name, value in headers.items()}


def raw_fields(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the same as ASGI writes headers: lower-case names, and bytes. Raises: UnsafeHeader."""
    return [(name.lower().encode(), value.encode()) for name, value in fields(headers).items()]


def checked(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response if all of them may go out. Raises: UnsafeHeader.

    Every response passes through here, so it costs two searches, not two for each header.
    """
    listed = list(headers)
    names, values = b"".join([name for name, _ in listed]), b"".join([value for _, value in listed])
    if _NOT_A_NAME.search(names) or _NOT_A_VALUE.search(values) or len(values) > MOST_VALUE:
        _explain(listed)
    for name, _ in listed:
        if not name or len(name) > 100 or name.lower() in _OURS_ALONE:
            _check_name(name)
    return listed


def _explain(headers: list[tuple[bytes, bytes]]) -> None:
    """Look at each header by itself. Several long values are no fault up to MOST_HEADERS."""
    for name, value in headers:
        _check_name(name)
        safe(value)
    if sum(len(value) for _, value in headers) > MOST_HEADERS:
        raise UnsafeHeader("The headers of this answer are too long together.")


def _check_name(name: bytes) -> None:
    if not _TOKEN.fullmatch(name) or name.lower() in _OURS_ALONE:
        raise UnsafeHeader("A header of this answer has a name that no header may have.")


# Readers: what somebody else wrote, as a value that may go out, or a harmless one in its place


def is_token(text: bytes) -> bool:
    """Return whether this is a token, as names of headers and of subprotocols are (RFC 9110 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def media_type(text: str | bytes | None, *, among: frozenset[str] | None = None) -> str:
    """Return the media type that somebody named, with its charset at most; otherwise DATA.

    `among`: the only ones that are passed on, in lower case.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    found = _MEDIA_TYPE.fullmatch(text.strip(" ")) if text is not None and len(text) <= 200 else None
    if found is None:
        return DATA
    kind, charset = found[1].lower(), found[2]
    if among is not None and kind not in among:
        return DATA
    return f"{kind}; charset={charset.lower()}" if charset else kind


def retry_after(text: str | bytes) -> str | None:
    """Return the seconds that somebody asks others to wait, a day at most; None where it is no number."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not re.fullmatch(r"[0-9]{1,10}", text):
        return None
    return str(min(int(text), 86_400))


def disposition(name: str, *, inline: bool = False) -> str:
    """Return the Content-Disposition of a file with that name: RFC 6266 in its extended, ASCII-only form.

    What is no character (a lone surrogate) becomes a question mark; the name is cut at MOST_FILE_NAME.
    """
    plain = name[:MOST_FILE_NAME].encode("utf-8", "replace")
    return f"{'inline' if inline else 'attachment'}; filename*=UTF-8''{quote(plain, safe='')}"
