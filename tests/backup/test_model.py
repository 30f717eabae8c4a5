"""The form of the file: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.backup.model import (
    HEADER_BYTES,
    LARGEST_DATA,
    About,
    BackupDamaged,
    Cost,
    Item,
    Part,
    PartEnd,
    Summary,
    Writer,
    checked_passphrase,
    read_backup,
)
from ocmt.errors import InvalidInput

Form = Literal["NFC", "NFD"]

CHEAP = Cost(log2_n=1, r=1, log2_chunk=6)
PASSPHRASE = "correct horse battery"
ABOUT = About("2026-11-24T12:00:00+00:00", "0.1.0", "0001")
PARTS = (
    (Part("table", "users", ("id", "email")), (b"1\tada\n", b"2\tbob\n")),
    (Part("secret", "vault-master-key"), (bytes(32),)),
    (Part("object", "users/1/empty"), ()),
    (Part("object", "users/1/ünïcode"), (b"x" * 200,)),
)


def written(
    parts: Sequence[tuple[Part, Sequence[bytes]]] = PARTS, cost: Cost = CHEAP, passphrase: str = PASSPHRASE
) -> bytes:
    file = io.BytesIO()
    writer = Writer(file.write, passphrase, cost)
    writer.begin(ABOUT)
    for part, data in parts:
        writer.part(part)
        for piece in data:
            writer.data(piece)
        writer.end_part()
    writer.finish()
    return file.getvalue()


def read(file: bytes, passphrase: str = PASSPHRASE) -> list[Item]:
    return list(read_backup(io.BytesIO(file).read, passphrase))


def contents(items: Sequence[Item]) -> list[tuple[Part, bytes]]:
    found: list[tuple[Part, bytes]] = []
    for item in items:
        if isinstance(item, Part):
            found.append((item, b""))
        elif isinstance(item, bytes):
            found[-1] = (found[-1][0], found[-1][1] + item)
    return found


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
parts = st.builds(
    Part,
    st.sampled_from(["table", "sequences", "secret", "object"]),
    names,
    st.lists(names, max_size=3).map(tuple),
)


@given(
    st.lists(st.tuples(parts, st.lists(st.binary(max_size=300), max_size=4)), max_size=5), st.integers(0, 9)
)
def test_what_is_written_is_read(given: list[tuple[Part, list[bytes]]], log2_chunk: int) -> None:
    items = read(written(given, Cost(log2_n=1, r=1, log2_chunk=log2_chunk)))
    assert items[0] == ABOUT
    assert contents(items) == [(part, b"".join(data)) for part, data in given]
    end = items[-1]
    assert isinstance(end, Summary)
    assert sum(end.parts.values()) == len(given)
    assert end.size == sum(len(piece) for _, data in given for piece in data)


def test_a_part_may_be_larger_than_any_record() -> None:
    data = bytes(range(256)) * (LARGEST_DATA // 128)
    items = read(written([(Part("object", "large"), (data,))], Cost(log2_n=1, r=1)))
    assert max(len(item) for item in items if isinstance(item, bytes)) == LARGEST_DATA
    assert contents(items)[0][1] == data
    assert items[-2] == PartEnd(len(data), items[-2].sha256 if isinstance(items[-2], PartEnd) else "")


def test_nothing_of_the_content_is_to_be_seen_in_the_file() -> None:
    file = written()
    for plain in (b"ada", b"users", b"vault-master-key", b"xxxxxxxx"):
        assert plain not in file


def test_no_two_files_of_the_same_content_are_alike() -> None:
    assert written()[HEADER_BYTES:] != written()[HEADER_BYTES:]


class TestDamage:
    """Of a small file every byte counts."""

    FILE = written()

    @pytest.mark.parametrize("bit", [0, 7])
    def test_every_byte_that_is_changed_is_noticed(self, bit: int) -> None:
        for position in range(len(self.FILE)):
            changed = bytearray(self.FILE)
            changed[position] ^= 1 << bit
            # Where the cost of the key is said, a bit may ask for much: more than that is refused at once.
            with pytest.raises(BackupDamaged):
                read(bytes(changed))

    def test_every_end_that_is_missing_is_noticed(self) -> None:
        for length in range(len(self.FILE)):
            with pytest.raises(BackupDamaged):
                read(self.FILE[:length])

    def test_an_end_that_is_missing_in_whole_chunks_is_noticed_at_the_last_one(self) -> None:
        size = (1 << CHEAP.log2_chunk) + 16
        for length in range(HEADER_BYTES + size, len(self.FILE), size):
            with pytest.raises(BackupDamaged, match="cannot be read from its chunk"):
                read(self.FILE[:length])

    def test_a_writer_that_errs_is_found_out(self) -> None:
        """Who holds the key can seal anything: the manifest still has to agree."""

        def a_part_that_is_not_its_entry(writer: Writer) -> None:
            writer.part(Part("object", "x"))
            writer._record(b"D", b"never counted")
            writer.end_part()

        def something_behind_the_end(writer: Writer) -> None:
            writer._record_json(b"Z", writer._tally.summary())

        def a_part_in_no_order(writer: Writer) -> None:
            writer._record(b"D", b"of what?")

        def a_record_without_end(writer: Writer) -> None:
            writer._pending += b"P\xff\xff\xff\xff"

        for wrong, complaint in (
            (a_part_that_is_not_its_entry, "is not what was written: object x"),
            (something_behind_the_end, "does not hold what its end says"),
            (a_part_in_no_order, "is out of order"),
            (a_record_without_end, "has a record that is too long"),
        ):
            file = io.BytesIO()
            writer = Writer(file.write, PASSPHRASE, CHEAP)
            writer.begin(ABOUT)
            wrong(writer)
            writer.finish()
            with pytest.raises(BackupDamaged, match=complaint):
                read(file.getvalue())

    def test_every_byte_that_is_added_is_noticed(self) -> None:
        for more in (b"\x00", self.FILE[-80:], self.FILE):
            with pytest.raises(BackupDamaged, match="was changed, or its end is missing"):
                read(self.FILE + more)

    def test_every_chunk_that_is_moved_left_out_or_doubled_is_noticed(self) -> None:
        size = (1 << CHEAP.log2_chunk) + 16
        header, body = self.FILE[:HEADER_BYTES], self.FILE[HEADER_BYTES:]
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        assert len(chunks) > 5
        for index in range(len(chunks) - 1):
            swapped = list(chunks)
            swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
            without = chunks[:index] + chunks[index + 1 :]
            doubled = chunks[:index] + chunks[index : index + 1] + chunks[index:]
            for other in (swapped, without, doubled):
                with pytest.raises(BackupDamaged):
                    read(header + b"".join(other))

    def test_a_chunk_of_another_backup_does_not_fit(self) -> None:
        size = HEADER_BYTES + (1 << CHEAP.log2_chunk) + 16
        other = written()
        with pytest.raises(BackupDamaged):
            read(other[:size] + self.FILE[size:])

    @given(st.binary(max_size=400))
    def test_any_other_file_is_refused(self, file: bytes) -> None:
        with pytest.raises(BackupDamaged):
            read(file)

    def test_what_is_damaged_is_said_with_what_to_do(self) -> None:
        with pytest.raises(BackupDamaged, match=r"^This is not a backup of OCMT, or not a whole one\.$"):
            read(b"PK\x03\x04" + bytes(500))
        with pytest.raises(BackupDamaged, match="a newer OCMT made it: update this one first"):
            read(self.FILE[:8] + b"\x02" + self.FILE[9:])
        with pytest.raises(BackupDamaged, match=r"from its chunk 2 on: .* Use another one\.$"):
            read(self.FILE[: HEADER_BYTES + 100])

    def test_a_header_cannot_ask_for_more_memory_than_any_backup_needs(self) -> None:
        for position, value in ((9, 40), (10, 255), (11, 200), (12, 31), (9, 0)):
            changed = bytearray(self.FILE)
            changed[position] = value
            with pytest.raises(BackupDamaged, match="numbers that cannot be"):
                read(bytes(changed))


def test_another_passphrase_is_told_from_a_damaged_file() -> None:
    with pytest.raises(BackupDamaged, match="The passphrase is not this backup's"):
        read(written(), "correct horse batterz")


@pytest.mark.parametrize("made", ["NFC", "NFD"])
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_a_passphrase_opens_on_another_system_that_writes_its_umlauts_otherwise(
    made: Form, typed: Form
) -> None:
    words = "größere Übung, naïve Ångström"
    file = written(passphrase=unicodedata.normalize(made, words))
    assert read(file, unicodedata.normalize(typed, words)) == read(written())


def test_a_passphrase_is_long_enough_not_to_be_guessed() -> None:
    assert checked_passphrase("twelve chars") == "twelve chars"
    with pytest.raises(InvalidInput, match="at least 12 characters"):
        checked_passphrase("eleven char")
