"""A manifest: what is written is what is read, nonsense is refused, and nothing needed is forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.agents.snapshots.manifest import (
    Entry,
    Manifest,
    Mark,
    Retention,
    known_hash,
    needed,
    parse,
    parse_mark,
    remember,
    succeed,
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
    st.dictionaries(st.sampled_from(HASHES), st.integers(1, 2**62)),
    st.lists(st.builds(LeftOut, names, st.text())),
)
def test_what_is_written_is_read(
    entries: tuple[Entry, ...],
    generation: int,
    image: str | None,
    older: dict[str, int],
    left_out: list[LeftOut],
) -> None:
    manifest = Manifest(generation, NOW, image, entries, tuple(left_out), older)
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
        ({"older": {"../x": 1}}, "older contents"),
        ({"older": {HASHES[2]: 0}}, "is 0"),
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
    "data",
    [None, b"", b"torn {", b"[]", b'{"version":1}', b'{"version":1,"generation":1,"known":{"a":[1]}}',
     b'{"version":2,"generation":1,"known":{}}'],
)  # fmt: skip
def test_a_mark_that_cannot_be_read_says_nothing(data: bytes | None) -> None:
    assert parse_mark(data) == Mark()


# What is kept


@given(st.lists(st.integers(0, 20 * 24), min_size=0, max_size=40), st.integers(1, 12))
def test_the_newest_are_kept_and_all_that_are_young(hours: list[int], newest: int) -> None:
    ages = sorted(hours, reverse=True)  # generation 1 is the oldest
    made = {number: NOW - timedelta(hours=age) for number, age in enumerate(ages, 1)}
    dropped = Retention(newest, timedelta(days=7)).dropped(made, NOW)
    kept = made.keys() - dropped
    assert len(kept) >= min(newest, len(made))
    assert all(made[number] <= NOW - timedelta(days=7) for number in dropped)
    assert all(number in kept for number in made if made[number] > NOW - timedelta(days=7))
    assert not kept or not dropped or max(dropped) < min(kept)
    if len(kept) > newest:
        assert all(made[number] > NOW - timedelta(days=7) for number in sorted(kept)[:-newest])


@given(
    st.lists(st.tuples(st.frozensets(st.sampled_from(HASHES)), st.integers(0, 100)), min_size=1, max_size=30),
    st.integers(1, 3),
)
def test_no_content_is_given_up_that_a_kept_generation_needs(
    history: list[tuple[frozenset[str], int]], newest: int
) -> None:
    """A history of generations, each some hours after the one before, with whatever contents."""
    retention = Retention(newest, timedelta(days=2))
    now = NOW
    made: dict[int, datetime] = {}
    manifests: dict[int, Manifest] = {}
    stored: set[str] = set()
    previous: Manifest | None = None
    for generation, (contents, hours) in enumerate(history, 1):
        now += timedelta(hours=hours)
        entries = tuple(Entry(f"workspace/{name}", "file", 0o600, 1, 1, name) for name in sorted(contents))
        stored |= contents
        kept = made.keys() - retention.dropped(made, now)
        manifest = succeed(Manifest(generation, now, None, entries), previous, min(kept, default=generation))
        manifests[generation] = previous = manifest
        made[generation] = now
        for gone in retention.dropped(made, now):
            del made[gone]
        stored &= needed(manifest, min(made))
        for kept_generation in made:
            assert manifests[kept_generation].blobs.keys() <= stored
    assert stored <= set(HASHES)


def test_contents_that_nobody_needs_any_more_are_given_up() -> None:
    first = Manifest(1, NOW, None, (Entry("workspace/a", "file", 0o600, 1, 1, HASHES[1]),))
    second = succeed(replace(first, generation=2, entries=()), first, 1)
    assert needed(second, 1) == {HASHES[1]}
    assert needed(second, 2) == set()
    assert succeed(replace(second, generation=3, older={}), second, 2).older == {}
