"""Zip files from outside: what is usual is read as `zipfile` reads it, everything else is refused unread."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.platform.unzip import BadZip, pieces, read_directory

MIB = 1024 * 1024


def zipped(
    members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, *, level: int | None = None
) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method, compresslevel=level) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def read_all(data: bytes, *, most: int = 64 * MIB) -> dict[str, bytes]:
    file = io.BytesIO(data)
    members = read_directory(file, most_members=1000, most_bytes=MIB)
    return {name: b"".join(pieces(file, name, member, most)) for name, member in members.items()}


CONTENTS = {
    "empty": b"",
    "a/b.txt": b"text" * 1000,
    "ü/\N{SNOWMAN}": random.Random(1).randbytes(3 * MIB),
    "zeros": bytes(5 * MIB),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("level", [1, 9])
def test_what_is_usual_is_read(method: int, level: int) -> None:
    assert read_all(zipped(CONTENTS, method, level=level)) == CONTENTS


def test_a_member_of_a_stream_and_one_with_large_numbers_are_read() -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    data = Unseekable()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 5000)
        with archive.open("b", "w", force_zip64=True) as member:
            member.write(b"y" * 5000)
    assert read_all(data.getvalue()) == {"a": b"x" * 5000, "b": b"y" * 5000}


def test_a_directory_of_more_than_65535_entries_is_read() -> None:
    data = zipped({f"{number}": b"" for number in range(66_000)}, zipfile.ZIP_STORED)
    members = read_directory(io.BytesIO(data), most_members=70_000, most_bytes=10 * MIB)
    assert len(members) == 66_000


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0/\\:"), min_size=1),
                       st.binary(max_size=2000), max_size=5), st.integers(0, 2500))  # fmt: skip
def test_no_more_is_given_than_was_asked_for(members: dict[str, bytes], most: int) -> None:
    assert read_all(zipped(members), most=most) == {name: data[:most] for name, data in members.items()}


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 93, 95, 98], ids=lambda number: f"method {number}"
)
def test_methods_that_are_not_bounded_are_refused_before_anything_is_read(method: int) -> None:
    if method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        data = bytearray(zipped({"manifest.json": bytes(MIB)}, method))
    else:
        data = bytearray(zipped({"manifest.json": bytes(MIB)}))
        struct.pack_into("<H", data, 8, method)
        struct.pack_into("<H", data, data.index(b"PK\1\2") + 10, method)
    with pytest.raises(BadZip, match="unusual method"):
        read_all(bytes(data))


def changed(where: str, offset: int, form: str, *values: int) -> Callable[[], bytes]:
    """A zip with two members of which one number is another."""

    def make() -> bytes:
        data = bytearray(zipped({"first": b"a" * 1000, "second": b"b" * 1000}))
        sign = {"local": b"PK\3\4", "entry": b"PK\1\2", "end": b"PK\5\6"}[where]
        struct.pack_into(form, data, data.index(sign) + offset, *values)
        return bytes(data)

    return make


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"PK\5\6" + b"\xff" * 18,
        lambda: b"PK\6\6" + bytes(52) + b"PK\6\7" + bytes(16) + b"PK\5\6" + b"\xff" * 16 + bytes(2),
        lambda: zipped({"a": b"x"}) + b"more",
        lambda: b"before" + zipped({"a": b"x"}),
        changed("entry", 8, "<H", 1),  # encrypted
        changed("entry", 8, "<H", 1 << 6),  # strongly
        changed("entry", 8, "<H", 1 << 13),  # a hidden directory
        changed("entry", 24, "<L", 0xFFFFFFF0),  # unpacks to 4 GiB, it says
        changed("entry", 24, "<L", 0xFFFFFFFF),  # a large number that is nowhere
        changed("entry", 20, "<L", 100_000),  # longer than the whole file
        changed("entry", 42, "<L", 40),  # begins inside another
        changed("entry", 42, "<L", 0xFFFFFF),
        changed("entry", 28, "<H", 60_000),  # its name is longer than the directory
        changed("entry", 34, "<H", 1),  # on another disk
        changed("end", 8, "<2H", 1, 1),
        changed("end", 8, "<2H", 3, 3),
        changed("end", 8, "<2H", 2, 1),
        changed("end", 12, "<L", 0),
        changed("end", 16, "<L", 1),
        changed("end", 20, "<H", 10),  # a comment
        changed("local", 26, "<H", 3),  # another name
        changed("local", 28, "<H", 0xFFFF),  # the content would lie in the next one
        changed("local", 6, "<H", 1),
        changed("local", 8, "<H", 12),
        changed("local", 0, "<L", 0),
        changed("entry", 16, "<L", 1),  # another checksum
    ],
)  # fmt: skip
def test_what_is_unusual_or_does_not_fit_together_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(BadZip):
        read_all(make())


def test_a_name_that_is_there_twice_is_refused() -> None:
    data = zipped({"a1": b"x", "a2": b"y"}).replace(b"a2", b"a1")
    with pytest.raises(BadZip, match="twice"):
        read_all(data)


def test_members_that_share_their_content_are_refused() -> None:
    """The quoted overlap of "A better zip bomb": many entries of one kernel."""
    data = zipped({"a": b"x" * 1000})
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    entry = data[start:end]
    entries = b"".join(entry[:46] + b"abcdefghij"[n : n + 1] + entry[47:] for n in range(10))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 10, 10, len(entries), start, 0)
    with pytest.raises(BadZip, match="overlaps"):
        read_all(data[:start] + entries + tail)


def test_a_large_directory_is_refused_before_it_is_read() -> None:
    data = zipped({f"{number:04}": b"" for number in range(5000)}, zipfile.ZIP_STORED)
    for bounds in ({"most_members": 100, "most_bytes": MIB}, {"most_members": 9999, "most_bytes": 1000}):
        tracemalloc.start()
        with pytest.raises(BadZip, match="too large"):
            read_directory(io.BytesIO(data), **bounds)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2 * len(data)


def test_a_bomb_costs_no_more_memory_than_a_piece() -> None:
    data = zipped({"a": bytes(200 * MIB)})
    file = io.BytesIO(data)
    members = read_directory(file, most_members=10, most_bytes=MIB)
    tracemalloc.start()
    assert sum(len(piece) for piece in pieces(file, "a", members["a"], 1 << 40)) == 200 * MIB
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * MIB


@given(st.integers(0, 2**32), st.binary(min_size=1, max_size=8))
def test_no_damage_raises_anything_else(seed: int, change: bytes) -> None:
    data = bytearray(zipped({"first": b"a" * 300, "second": bytes(300)}))
    at = seed % len(data)
    data[at : at + len(change)] = change
    try:
        read_all(bytes(data))
    except BadZip:
        return
