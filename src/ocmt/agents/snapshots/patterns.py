"""The patterns of `.ocmtignore`, matched all at once in time that grows with the length of a name only.

The patterns come from an untrusted agent. So they are compiled to one automaton whose states are the bits of
an integer: each character of a name costs a few operations on that integer, whatever the patterns are, and
nothing is ever tried again from an earlier place. A folder's state is kept for the names in it, so that only
a name's own characters cost anything. Each character is counted by an `Effort`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocmt.platform.work import Effort

LONGEST_IGNORE_FILE = 32 * 1024
MOST_PATTERNS = 200
LONGEST_PATTERN = 256
_BITS_OF_A_STEP = 4096
"""Operations on integers of up to so many bits take about as long as any other step."""
_CHARACTERS_KEPT = 512
"""The transitions of so many different characters are remembered."""


@dataclass(frozen=True)
class Pattern:
    """One line of `.ocmtignore`."""

    segments: tuple[str, ...]
    folders_only: bool
    keeps: bool
    """It began with `!`: what it matches is kept after all."""


def parse_ignore(text: bytes) -> list[Pattern]:
    """The patterns of an `.ocmtignore`, which is written like a `.gitignore` at the top of the workspace.

    Understood: `*`, `?`, `**`, `[a-z]`, `[!a-z]`, a trailing `/` for folders only, a leading `!`, comments.
    Lines beyond the first 200 patterns, and those of over 256 characters, have no effect.
    """
    patterns: list[Pattern] = []
    for line in text[:LONGEST_IGNORE_FILE].decode("utf-8", "surrogateescape").splitlines():
        words = line.rstrip()
        if not words or words.startswith("#") or len(words) > LONGEST_PATTERN:
            continue
        keeps = words.startswith("!")
        words = words.removeprefix("!").removeprefix("\\")
        folders_only = words.endswith("/")
        anchored = "/" in words.rstrip("/")
        segments = [segment for segment in words.split("/") if segment]
        if segments and len(patterns) < MOST_PATTERNS:
            start = [] if anchored else ["**"]
            patterns.append(Pattern((*start, *segments), folders_only, keeps))
    return patterns


class Matcher:
    """All patterns as one automaton. Feed it the segments of a path, one after another.

    Each pattern is a row of bits. A set bit says "the path so far matches the pattern up to here". The bit of
    a `*` or `**` stays set while characters pass; the others move on by one with a character that fits.
    """

    def __init__(self, patterns: Sequence[Pattern], effort: Effort) -> None:
        self._effort = effort
        self._bits = 0
        self._literal: dict[str, int] = {}
        """Character to the bits that it moves on."""
        self._any = 0
        """Bits that any character but `/` moves on."""
        self._classes: dict[str, int] = {}
        """`[…]` to the bits that its characters move on."""
        self._slash = 0
        self._stay = 0
        """Bits that stay while characters other than `/` pass."""
        self._stay_at_slash = 0
        self._stars = 0
        """Bits of `*`, which may stand for nothing: the next bit is set with them."""
        self._skips = 0
        """Bits of `**`, which may stand for no folder: where a name begins the next bit is set with them."""
        self._ends = 0
        self._ends_folder = 0
        self._keeps = 0
        self._moves: dict[str, int] = {}
        begins = 0
        for pattern in patterns:
            begins |= 1 << self._bits
            self._compile(pattern)
        self._cost = 1 + self._bits // _BITS_OF_A_STEP
        self.begin = self._spread(begins)
        """The state at the top of the workspace."""

    def enter(self, state: int, name: str) -> int:
        """Return the state inside the folder of that name."""
        state = self.step(state, name)
        return self._spread(((state & self._slash) << 1) | (state & self._stay_at_slash))

    def step(self, state: int, name: str) -> int:
        """Return the state after a name in a folder. Raises: LimitReached, Abandoned."""
        self._effort.spend(self._cost * (1 + len(name)))
        moves, stay, stars = self._moves, self._stay, self._stars
        for character in name:
            move = moves.get(character)
            if move is None:
                move = self._learn(character)
            state = ((state & move) << 1) | (state & stay)
            state |= (state & stars) << 1
            if not state:
                break
        return state

    def keeps(self, state: int, *, is_folder: bool) -> bool:
        """Return whether what has that state is kept: the last pattern that matches decides."""
        matched = state & (self._ends_folder if is_folder else self._ends)
        return not matched or bool(self._keeps >> (matched.bit_length() - 1) & 1)

    def _spread(self, state: int) -> int:
        """At the beginning of a name: no two `**` follow one another, and no two `*`."""
        state |= (state & self._skips) << 1
        return state | (state & self._stars) << 1

    def _next(self) -> int:
        bit = 1 << self._bits
        self._bits += 1
        return bit

    def _compile(self, pattern: Pattern) -> None:
        segments = pattern.segments
        last = len(segments) - 1
        skipping = False
        for number, segment in enumerate(segments):
            if segment != "**":
                self._compile_segment(segment)
                skipping = False
                if number < last:
                    self._slash |= self._next()
            elif number < last:
                if not skipping:  # several in a row are as one
                    bit = self._next()
                    self._stay |= bit
                    self._stay_at_slash |= bit
                    self._skips |= bit
                skipping = True
            else:
                # At the end it stands for what is inside, not for the folder itself.
                self._any |= self._next()
                self._stay |= 1 << self._bits
                self._stay_at_slash |= 1 << self._bits
        end = self._next()
        self._ends_folder |= end
        if not pattern.folders_only:
            self._ends |= end
        if pattern.keeps:
            self._keeps |= end

    def _compile_segment(self, text: str) -> None:
        at = 0
        while at < len(text):
            sign = text[at]
            if sign == "*":
                while text[at + 1 : at + 2] == "*":
                    at += 1
                bit = self._next()
                self._stay |= bit
                self._stars |= bit
            elif sign == "?":
                self._any |= self._next()
            elif sign == "\\" and at + 1 < len(text):
                at += 1
                self._add_literal(text[at])
            elif sign == "[" and (end := text.find("]", at + 2)) > 0:
                inside = text[at + 1 : end]
                self._classes[inside] = self._classes.get(inside, 0) | self._next()
                at = end
            else:
                self._add_literal(sign)
            at += 1

    def _add_literal(self, character: str) -> None:
        self._literal[character] = self._literal.get(character, 0) | self._next()

    def _learn(self, character: str) -> int:
        """Return the bits that a character moves on, and remember them."""
        move = self._any | self._literal.get(character, 0)
        for inside, bits in self._classes.items():
            self._effort.spend(1 + len(inside))
            negated = inside[0] in "!^" and len(inside) > 1
            if _in_class(inside[negated:], character) is not negated:
                move |= bits
        if len(self._moves) >= _CHARACTERS_KEPT:
            self._moves.clear()
        self._moves[character] = move
        return move


def _in_class(signs: str, character: str) -> bool:
    at = 0
    while at < len(signs):
        if signs[at + 1 : at + 2] == "-" and at + 2 < len(signs):
            if signs[at] <= character <= signs[at + 2]:
                return True
            at += 3
        else:
            if signs[at] == character:
                return True
            at += 1
    return False
