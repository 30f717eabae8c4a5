"""A manifest: what is written is what is read, nonsense is refused, and nothing needed is forgotten."""

from __future__ import annotations

import hashlib
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.agents.snapshots.manifest import (
    Entry,
    Manifest,
    Mark,
    Span,
    known_hash,
    parse,
    parse_mark,
    remember,
)
from ocmt.errors import InvalidInput
from ocmt.runtimes.base import FoundFile, LeftOut

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HASHES = [f"{number:064x}" for number in range(8)]

# Names as a file system has them: any bytes but 0 and the slash.
names = (
    st.binary(min_size=1, max_size=12)
    .filter(lambda name: not set(name) & {0, ord("/")} and name not in (b".", b".."))
    .map(lambda name: name.decode("utf-8", "surrogateescape"))
)
modes = st.integers(0, 0o777)


@st.composite
def trees(draw: st.DrawFn) -> tuple[Entry, ...]:
    """A tree of folders, files and links."""
    folders = [draw(st.sampled_from(["workspace", "state", "home"]))]
    entries = {folders[0]: Entry(folders[0], "folder", draw(modes))}
    sizes = {name: draw(st.integers(0, 2**40)) for name in HASHES}
    for _ in range(draw(st.integers(0, 12))):
        path = f"{draw(st.sampled_from(folders))}/{draw(names)}"
        if path in entries:
            continue
        kind = draw(st.sampled_from(["file", "folder", "link"]))
        if kind == "folder":
            folders.append(path)
            entries[path] = Entry(path, "folder", draw(modes))
        elif kind == "link":
            entries[path] = Entry(path, "link", 0o777, target=draw(names))
        else:
            name = draw(st.sampled_from(HASHES))
            mtime = draw(st.integers(-(2**62), 2**62))
            entries[path] = Entry(path, "file", draw(modes), sizes[name], mtime, name)
    return tuple(sorted(entries.values()))


@given(
    trees(),
    st.integers(1, 2**62),
    st.none() | st.text(),
    st.dictionaries(st.sampled_from(HASHES), st.tuples(st.integers(1, 2**62), st.integers(1, 2**62))),
    st.dictionaries(st.sampled_from(HASHES), st.integers(1, 2**62)),
    st.lists(st.builds(LeftOut, names, st.text())),
)
def test_what_is_written_is_read(
    entries: tuple[Entry, ...],
    generation: int,
    image: str | None,
    older: dict[str, Span],
    since: dict[str, int],
    left_out: list[LeftOut],
) -> None:
    own = {entry.sha256 for entry in entries}
    since = {name: first for name, first in since.items() if name in own}
    manifest = Manifest(generation, NOW, image, entries, tuple(left_out), older, since)
    assert parse(manifest.render()) == manifest
    assert parse(manifest.render()).content() == manifest.content()


@given(trees(), trees())
def test_contents_are_the_same_exactly_if_the_files_are(
    one: tuple[Entry, ...], two: tuple[Entry, ...]
) -> None:
    first, second = Manifest(1, NOW, None, one), Manifest(9, NOW + timedelta(1), "other", two)
    assert (first.content() == second.content()) is (one == two)


def a_manifest() -> dict[str, Any]:
    entries = (
        Entry("workspace", "folder", 0o700),
        Entry("workspace/a", "file", 0o600, 3, 1, HASHES[1]),
        Entry("workspace/link", "link", 0o777, target="/etc/passwd"),
    )
    read = json.loads(Manifest(1, NOW, None, entries).render())
    assert isinstance(read, dict)
    return read


def refused(data: dict[str, Any]) -> str:
    with pytest.raises(InvalidInput) as error:
        parse(json.dumps(data).encode())
    assert error.value.message.startswith("This snapshot's manifest is damaged: ")
    return error.value.message


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/etc/passwd", "not in the agent's folder"),
        ("workspace/../../x", "leads out"),
        ("workspace//x", "leads out"),
        ("workspace/./x", "leads out"),
        ("workspace/", "leads out"),
        ("elsewhere/x", "not in the agent's folder"),
        ("..", "not in the agent's folder"),
        ("", "no path"),
        ("workspace/a\0b", "no path"),
        ("workspace/" + "x" * 5000, "no path"),
        ("workspace" + "/d" * 200, "not in the agent's folder"),
        (7, "no path"),
        ("workspace/\ud800", "no path"),
        ("workspace/a\udfff/b", "no path"),
        ("workspace/" + chr(0xDC41), "no path"),
        ("workspace/\udcc3\udca4", "no path"),
        ("workspace/" + "x" * 256, "too long a name"),
        ("workspace/" + "\xe4" * 128, "too long a name"),
        ("workspace/" + "\U0001f600" * 64 + "/x", "too long a name"),
        ("workspace" + ("/" + "\xe4" * 100) * 20, "no path"),
        ("workspace/a", "twice"),
        ("workspace/missing/x", "in no folder"),
        ("workspace/a/below a file", "in no folder"),
        ("workspace/link/through a link", "in no folder"),
        ("state", "is no folder"),
    ],
)
def test_a_path_that_would_do_harm_is_refused(path: object, says: str) -> None:
    data = a_manifest()
    data["entries"].append({"path": path, "kind": "link", "target": "x"})
    assert says in refused(data)


@pytest.mark.parametrize(
    "target", ["", "a\0b", "\ud800", "a/\udfff", chr(0xDC41), "x" * 4096, "\xe4" * 2048, 7, None]
)
def test_a_target_that_no_disk_takes_is_refused(target: object) -> None:
    data = a_manifest()
    data["entries"].append({"path": "workspace/other", "kind": "link", "target": target})
    assert "leads nowhere" in refused(data)


@given(st.text(max_size=300), st.text(max_size=5000))
def test_what_is_let_pass_can_be_made_on_a_disk(name: str, target: str) -> None:
    data = a_manifest()
    data["entries"].append({"path": f"workspace/{name}", "kind": "link", "target": target})
    try:
        parse(json.dumps(data).encode())
    except InvalidInput:
        return
    with tempfile.TemporaryDirectory() as folder:
        for folders in range(1, name.count("/") + 1):
            (Path(folder) / "/".join(name.split("/")[:folders])).mkdir(exist_ok=True)
        (Path(folder) / name).symlink_to(target)


def test_the_longest_target_that_a_disk_has_can_be_read_back() -> None:
    link = Entry("workspace/other", "link", 0o777, target="x" * 4095)
    entries = (Entry("workspace", "folder", 0o700), link)
    assert parse(Manifest(1, NOW, None, entries).render()).entries == entries


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_only_a_file_has_a_content(kind: str) -> None:
    data = a_manifest()
    data["entries"].append(
        {"path": "workspace/odd", "kind": kind, "mode": 448, "target": "x", "since": 1, "sha256": []}
    )
    assert HASHES[1] not in parse(json.dumps(data).encode()).since


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": "A" * 64}, "hash of 'workspace/a'"),
        ({"sha256": "../../../secret"}, "hash of 'workspace/a'"),
        ({"sha256": None}, "hash of 'workspace/a'"),
        ({"size": -1}, "size is -1"),
        ({"size": True}, "size is True"),
        ({"size": 1e3}, "size is 1000.0"),
        ({"mode": 0o4755}, "mode is 2541"),
        ({"mtime_ns": "now"}, "mtime_ns is 'now'"),
        ({"kind": "device"}, "not a file, folder or link"),
        ({"kind": "link"}, "leads nowhere"),
        ({"size": 4}, "totals"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(changes: dict[str, Any], says: str) -> None:
    data = a_manifest()
    data["entries"][1] |= changes
    assert says in refused(data)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version is 2"),
        ({"generation": 0}, "generation is 0"),
        ({"created_at": "yesterday"}, "time is 'yesterday'"),
        ({"created_at": "2026-11-24T12:00:00"}, "time is"),
        ({"image": 3}, "image"),
        ({"entries": {}}, "no list of entries"),
        ({"entries": ["workspace"]}, "no object"),
        ({"left_out": [["a"]]}, "left out"),
        ({"left_out": [["a", "b"]] * 1001}, "very long"),
        ({"older": {"../x": 1}}, "older contents"),
        ({"older": {HASHES[2]: 0}}, "is 0"),
        ({"older": {HASHES[2]: [0, 4]}}, "first is 0"),
        ({"older": {HASHES[2]: [1, 2, 3]}}, "is [1, 2, 3]"),
        ({"files": 2}, "totals"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(changes: dict[str, Any], says: str) -> None:
    assert says in refused(a_manifest() | changes)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_manifest_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="damaged"):
        parse(data)


def test_one_hash_has_one_size() -> None:
    data = a_manifest()
    data["entries"].append(data["entries"][1] | {"path": "workspace/b", "size": 4})
    data |= {"files": 2, "bytes": 7}
    assert "another size" in refused(data)


def test_a_manifest_of_before_generations_were_thinned_out_is_understood() -> None:
    data = a_manifest() | {"older": {HASHES[2]: 7}}
    assert parse(json.dumps(data).encode()).older == {HASHES[2]: (1, 7)}


# What need not be read again

files = st.builds(
    FoundFile,
    path=st.sampled_from(["workspace/a", "workspace/b", "state/c"]),
    kind=st.just("file"),
    mode=modes,
    size=st.integers(0, 3),
    mtime_ns=st.integers(0, 3),
    ctime_ns=st.integers(0, 3),
    inode=st.integers(0, 3),
    target=st.none(),
)


@given(files, files)
def test_a_file_is_known_again_exactly_if_nothing_about_it_changed(before: FoundFile, now: FoundFile) -> None:
    mark = Mark(1, remember([before], {before.path: HASHES[0]}, looked_at_ns=10**9))
    assert parse_mark(mark.render()) == mark
    # Its mode is looked at each time anyway.
    same = before._replace(mode=now.mode) == now
    assert known_hash(now, mark) == (HASHES[0] if same else None)


def test_a_file_that_changed_just_now_is_read_again_the_next_time() -> None:
    changed = FoundFile("workspace/a", "file", 0o600, 1, 1, ctime_ns=10**9, inode=1)
    assert remember([changed], {"workspace/a": HASHES[0]}, looked_at_ns=10**9 + 99_000_000) == {}
    assert remember([changed], {"workspace/a": HASHES[0]}, looked_at_ns=10**9 + 101_000_000) != {}
    assert remember([changed], {"workspace/a": HASHES[0]}, looked_at_ns=5) == {}, "its clock was set back"


@pytest.mark.parametrize(
    ("generation", "manifest", "stands"),
    [(7, "ours", 7), (7, "another's", 5), (5, "before", 5), (8, "later", 5)],
)
def test_a_mark_from_before_its_row_counts_only_if_that_row_came_to_be(
    generation: int, manifest: str, stands: int
) -> None:
    mark = Mark(7, {}, "ours", 5)
    assert parse_mark(mark.render()) == mark
    assert mark.stands_at(generation, manifest) == stands
    assert Mark(7).stands_at(generation, manifest) == 7


@pytest.mark.parametrize(
    "data",
    [None, b"", b"torn {", b"[]", b'{"version":1}', b'{"version":1,"generation":1,"known":{"a":[1]}}',
     b'{"version":2,"generation":1,"known":{}}'],
)  # fmt: skip
def test_a_mark_that_cannot_be_read_says_nothing(data: bytes | None) -> None:
    assert parse_mark(data) == Mark()


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 8000])
def test_many_entries_are_read_and_hashed_as_few_are(count: int) -> None:
    files = (Entry(f"workspace/{number:05}", "file", 0o600, 1, 1, HASHES[1]) for number in range(count))
    entries = (Entry("workspace", "folder", 0o700), *files)
    manifest = Manifest(1, NOW, None, entries, (LeftOut("workspace/s", "a socket"),))
    data = manifest.render()
    assert (len(data) > 1024 * 1024) is (count == 8000), "so that both ways are tried"
    assert parse(data) == manifest
    plain = json.dumps([entries, manifest.left_out], separators=(",", ":")).encode()
    assert manifest.content() == hashlib.sha256(plain).hexdigest(), "as it stands in rows of older programs"


def test_a_long_manifest_with_lines_of_its_own_is_read_as_json_is() -> None:
    files = (Entry(f"workspace/{number:05}", "file", 0o600, 1, 1, HASHES[1]) for number in range(8000))
    data = Manifest(1, NOW, None, (Entry("workspace", "folder", 0o700), *files)).render()
    two_in_a_line = data.replace(b"},\n", b"},", 4000)
    assert parse(two_in_a_line) == parse(data)
    with pytest.raises(InvalidInput):
        parse(data.replace(b"},\n", b"}},\n", 1))
