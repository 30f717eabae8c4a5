"""Rules for the whole program: where threads come from, and who may decompress."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "ocmt"

MAY_USE_THREADS_OF_THEIR_OWN = {
    "platform/work.py",  # the pools themselves
    "platform/disk.py",  # syncs up to 32 files at once, and ends its threads with the call
    "runtimes/egress.py",  # the names that agents ask for, each agent a few at once
    "setup/",  # a process of its own, for the one person who installs
    "testing/",  # doubles for tests
}
"""Everything else runs what blocks in a pool of `platform.work`: bounded, fair, and with an owner."""

MAY_DECOMPRESS = {
    "platform/unzip.py",  # bounded by output: everything that comes from outside
    "setup/uv.py",  # a download whose hash is known beforehand
    "identity/api_keys/model.py",  # zlib.crc32 of a key that we have made
    "agents/snapshots/archive.py",  # writes only
    "privacy/service.py",  # writes only
}
WRITES_ONLY = {"agents/snapshots/archive.py", "privacy/service.py"}

THREADS = {
    ("asyncio", "to_thread"),
    ("", "run_in_executor"),
    ("", "ThreadPoolExecutor"),
    ("", "ProcessPoolExecutor"),
    ("threading", "Thread"),
    ("", "run_in_threadpool"),
    ("anyio", "to_thread"),
    ("", "getaddrinfo"),
}
DECOMPRESSING_MODULES = {
    "zipfile", "zlib", "gzip", "bz2", "lzma", "tarfile", "zstandard", "brotli", "lz4", "snappy", "py7zr",
    "compression", "isal", "zlib_ng", "brotlicffi", "backports.zstd", "pyzstd",
}  # fmt: skip
DECOMPRESSING_CALLS = {"unpack_archive", "extractall", "auto_decompress", "decompress", "decompressobj"}


def test_threads_come_from_the_pools() -> None:
    for file, tree in sources():
        if allowed(file, MAY_USE_THREADS_OF_THEIR_OWN):
            continue
        found = [name for name in names(tree) if name in THREADS or ("", name[1]) in THREADS]
        assert not found, f"{file} uses {found}: use a pool of ocmt.platform.work"


def test_only_one_module_decompresses_what_comes_from_outside() -> None:
    for file, tree in sources():
        imported = {module for module in imports(tree) if module.partition(".")[0] in DECOMPRESSING_MODULES}
        called = {name for _, name in names(tree) if name in DECOMPRESSING_CALLS}
        # `auto_decompress=False` is how a client says that it does not.
        called -= {"auto_decompress"} if says_no(tree) else set()
        if not allowed(file, MAY_DECOMPRESS):
            assert not imported | called, f"{file} uses {imported | called}: use ocmt.platform.unzip"
        if file in WRITES_ONLY:
            assert not {"read", "extract", "extractall", "namelist", "testzip"} & calls_of(tree, "archive")


def test_every_client_leaves_answers_compressed() -> None:
    """aiohttp unpacks what a server sends, whole pieces at a time, unless it is told not to."""
    for file, tree in sources():
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            if (
                isinstance(called, ast.Attribute)
                and called.attr in ("ClientSession", "request")
                and (isinstance(called.value, ast.Name) and called.value.id == "aiohttp")
            ):
                assert file.startswith("testing/") or "auto_decompress" in keywords(node), file


def test_the_rules_find_what_they_look_for() -> None:
    tree = ast.parse(
        "import asyncio, lzma as x\nfrom zipfile import ZipFile\nfrom asyncio import to_thread\n"
        "loop.run_in_executor(None, f)\nshutil.unpack_archive(a)\nthreading.Thread(target=f)"
    )
    assert {"lzma", "zipfile"} <= set(imports(tree))
    found = set(names(tree))
    assert {("asyncio", "to_thread"), ("loop", "run_in_executor"), ("threading", "Thread")} <= found
    assert ("shutil", "unpack_archive") in found


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def allowed(file: str, places: set[str]) -> bool:
    return any(file == place or (place.endswith("/") and file.startswith(place)) for place in places)


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(what it is of, name) of every attribute, imported name, and keyword."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.value.id if isinstance(node.value, ast.Name) else "", node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.keyword) and node.arg:
            yield "", node.arg


def calls_of(tree: ast.Module, of: str) -> set[str]:
    return {name for owner, name in names(tree) if owner == of}


def keywords(node: ast.AST) -> set[str]:
    return {word.arg for word in getattr(node, "keywords", []) if word.arg}


def says_no(tree: ast.Module) -> bool:
    values = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "auto_decompress"
    ]
    return all(isinstance(value, ast.Constant) and value.value is False for value in values)
