"""Reads JSON that an agent wrote: strictly, and a large text in small steps that let the event loop go on.

`json.loads` holds the interpreter's lock until it is done, also in a thread, so a large text would stop the
whole process. `read_in_steps` is for such texts: no step of it takes more than a few milliseconds, and all of
them are paid from an `Effort`. Small texts are faster with `read_at_once`. Both refuse the same texts.

What is refused although `json.loads` takes it: a key that stands twice in an object, NaN and Infinity,
numbers that are too large, half of a surrogate pair, and deep nesting. Whoever reads the text after us could
understand each of them in another way than we do.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # undocumented, and there since 2.6
from typing import Any

from ocmt.platform.work import Effort

AT_ONCE = 256 * 1024
"""Bytes of a text that is read on the event loop."""
MOST_DEPTH = 100
MOST_DIGITS = 100
MOST_KEY = 4 * 1024
_WINDOW = 64 * 1024
"""Bytes of a string that are decoded in one step."""

_TOKEN = re.compile(
    rb"[ \t\n\r]{0,1024}(?:"
    rb"(?P<mark>[\[\]{}:,])"
    rb'|(?P<string>")'
    rb"|(?P<word>true|false|null)"
    rb"|(?P<number>-?(?:0|[1-9]\d{0,99})(?P<rest>(?:\.\d{1,100})?(?:[eE][+-]?\d{1,4})?))"
    rb")"
)
_SPACE = re.compile(rb"[ \t\n\r]{1,65536}")
_WORDS = {b"true": True, b"false": False, b"null": None}
_UNBROKEN = re.compile(
    rb"(?:[^\\]+|\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*",
    re.DOTALL,
)
"""The part of a piece of a string that ends with a whole character."""
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotJson(ValueError):
    """The text is not JSON as it is read here; the message says why."""


class CutText(str):
    """The beginning of a string that was too long to be kept."""

    size: int
    """Bytes that the whole string takes in the text."""


def read_at_once(data: bytes, *, strict: bool = True) -> Any:
    """Return what a small text says. `strict` False: take keys that stand twice, and halves of surrogates.

    Raises: NotJson.
    """
    try:
        if not strict:
            return json.loads(data.decode(), parse_constant=_refuse_constant, parse_int=_whole)
        tree = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_whole,
            parse_float=_real,
        )
        if _ESCAPED_SURROGATE.search(data):
            json.dumps(tree, ensure_ascii=False).encode()
        _measure(tree)
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except UnicodeError:
        raise NotJson("it is not valid UTF-8") from None
    except ValueError as error:
        raise error if isinstance(error, NotJson) else NotJson("it is not valid JSON") from None
    return tree


def read_in_steps(data: bytes, effort: Effort, *, longest: int, strict: bool = True) -> Any:
    """Return what a text says, for a thread. Strings of more than `longest` bytes come as CutText.

    Raises: NotJson; LimitReached and Abandoned as `Effort.spend` does, once for each token and each piece of
    a string.
    """
    reader = _Reader(data, effort, longest, strict)
    try:
        tree = reader.value(0)
    except UnicodeError:
        raise NotJson("it is not valid UTF-8") from None
    reader.end()
    return tree


class _Reader:
    """A place in a text that moves forward."""

    def __init__(self, data: bytes, effort: Effort, longest: int, strict: bool) -> None:
        self._data = data
        self._spend = effort.spend
        self._longest = longest
        self._strict = strict
        self._at = 0

    def value(self, depth: int) -> Any:
        found = self._token()
        kind = found.lastgroup
        if kind == "string":
            return self._string(self._longest)
        if kind == "number":
            return self._number(found)
        if kind == "word":
            return _WORDS[found["word"]]
        if depth >= MOST_DEPTH:
            raise NotJson("it is nested too deeply")
        if found["mark"] == b"[":
            return self._list(depth + 1)
        if found["mark"] == b"{":
            return self._object(depth + 1)
        raise NotJson("it is not valid JSON")

    def end(self) -> None:
        self._skip_space()
        if self._at != len(self._data):
            raise NotJson("something stands behind its end")

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        if self._is_next(b"]"):
            return found
        while True:
            found.append(self.value(depth))
            if self._mark() == b"]":
                return found
            if self._last != b",":
                raise NotJson("it is not valid JSON")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._is_next(b"}"):
            return found
        while True:
            if self._token().lastgroup != "string":
                raise NotJson("it is not valid JSON")
            key = self._string(MOST_KEY)
            if isinstance(key, CutText):
                raise NotJson("a key is too long")
            if self._strict and key in found:
                raise NotJson("a key stands twice in one object")
            if self._mark() != b":":
                raise NotJson("it is not valid JSON")
            found[key] = self.value(depth)
            if self._mark() == b"}":
                return found
            if self._last != b",":
                raise NotJson("it is not valid JSON")

    def _token(self) -> re.Match[bytes]:
        self._spend()
        found = _TOKEN.match(self._data, self._at)
        if found is None:
            self._skip_space()
            found = _TOKEN.match(self._data, self._at)
            if found is None:
                raise NotJson("it is not valid JSON")
        self._at = found.end()
        return found

    def _mark(self) -> bytes:
        self._last: bytes = self._token()["mark"] or b""
        return self._last

    def _is_next(self, mark: bytes) -> bool:
        before = self._at
        if self._token()["mark"] == mark:
            return True
        self._at = before
        return False

    def _skip_space(self) -> None:
        while found := _SPACE.match(self._data, self._at):
            self._spend()
            self._at = found.end()

    def _number(self, found: re.Match[bytes]) -> int | float:
        if self._data[self._at : self._at + 1].isalnum() or self._data[self._at : self._at + 1] in (
            b".",
            b"-",
        ):
            raise NotJson("a number is too large, or not one")
        text = found["number"].decode()
        return _real(text) if found["rest"] else int(text)

    def _string(self, longest: int) -> str:
        """Behind the first quotation mark, up to behind the last one."""
        start = self._at
        end = self._end_of_string()
        self._at = end + 1
        raw = self._data[start : min(end, start + longest)]
        text = self._decoded(raw, whole=end - start <= longest)
        if end - start <= longest:
            return text
        cut = CutText(text)
        cut.size = end - start
        return cut

    def _end_of_string(self) -> int:
        at = self._at
        while (quote := self._data.find(b'"', at)) >= 0:
            if self._backslashes_before(quote) % 2 == 0:
                return quote
            self._spend()
            at = quote + 1
        raise NotJson("a string does not end")

    def _backslashes_before(self, place: int) -> int:
        """Each backslash of a text is counted for one quotation mark at most."""
        count, width = 0, 8
        while True:
            piece = self._data[max(self._at, place - count - width) : place - count]
            found = len(piece) - len(piece.rstrip(b"\\"))
            count += found
            if found < len(piece) or not piece:
                return count
            width = min(2 * width, _WINDOW)

    def _decoded(self, raw: bytes, *, whole: bool) -> str:
        if len(raw) <= _WINDOW and whole:
            return self._piece(raw)
        parts, at = [], 0
        while at < len(raw):
            self._spend()
            window = raw[at : at + _WINDOW]
            last = at + _WINDOW >= len(raw)
            if not (last and whole):
                window = _whole_characters(window)
                if not window:
                    break  # the rest of a string that is cut, or half of a surrogate pair
            parts.append(self._piece(window))
            at += len(window)
        if whole and at < len(raw):
            parts.append(self._piece(raw[at : at + _WINDOW]))
        return "".join(parts)

    def _piece(self, raw: bytes) -> str:
        if b"\\" not in raw:
            if _CONTROL.search(raw):
                raise NotJson("a string has a control character")
            return raw.decode()
        try:
            text, _ = scanstring(raw.decode() + '"', 0, True)
        except UnicodeError:
            raise
        except ValueError:
            raise NotJson("a string has an escape that does not exist, or a control character") from None
        if self._strict and _ESCAPED_SURROGATE.search(raw):
            text.encode()
        return str(text)


_CONTROL = re.compile(rb"[\x00-\x1f]")


def _whole_characters(window: bytes) -> bytes:
    """Without what is only the beginning of a character or of an escape at the end."""
    found = _UNBROKEN.match(window)
    window = found[0] if found else b""
    # At most three bytes of a character of UTF-8 stand at the end without the rest.
    for back in range(1, min(4, len(window)) + 1):
        byte = window[-back]
        if byte < 0x80:
            return window
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return window if back >= length else window[:-back]
    return window


def _measure(tree: Any) -> None:
    """Raises NotJson where it is nested too deeply."""
    level = [tree] if isinstance(tree, dict | list) else []
    for _ in range(MOST_DEPTH):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise NotJson("it is nested too deeply")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotJson("a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise NotJson(f"{name} is not a number of JSON")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + 1:
        raise NotJson("a number is too large")
    return int(text)


def _real(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise NotJson("a number is too large")
    return number
