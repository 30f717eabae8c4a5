"""ETag and If-Match at the HTTP edge, for what is edited as a whole."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Response

from ocmt.errors import InvalidInput
from ocmt.platform.http.headers import safe

IfMatch = Annotated[
    str | None,
    Header(description="The ETag that you have seen: it is changed only if it still is so.", max_length=60),
]


def seen_of(if_match: str | None) -> str | None:
    """The tag in that header; None where it was not sent. Raises: InvalidInput."""
    return _within(if_match, "[0-9a-f]{1,50}")


def seen_version(if_match: str | None) -> int | None:
    """The same of what has its version as its tag."""
    tag = _within(if_match, "[0-9]{1,9}")
    return None if tag is None else int(tag)


def _within(if_match: str | None, tag: str) -> str | None:
    if if_match is None:
        return None
    found = re.fullmatch(f'"({tag})"', if_match.strip())
    if found is None:
        raise InvalidInput("Write If-Match like the ETag that you were given, with its quotation marks.")
    return found[1]


def set_etag(response: Response, tag: str) -> None:
    """Say which state this is."""
    response.headers["etag"] = safe(f'"{tag}"')
