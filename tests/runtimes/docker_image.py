"""Images for tests, made of this machine's files: no registry is asked.

Python with its standard library and the C libraries that it needs, the supervisor, a shell, and the stand-in
(or, for the journey, the real thing) where Node and OpenClaw would be.
"""

from __future__ import annotations

import io
import re
import subprocess
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO
from uuid import uuid4

import aiohttp

from ocmt.runtimes.bubblewrap import SUPERVISOR
from ocmt.runtimes.tools import Tools, own_python

_LEFT_OUT = re.compile(
    r"/(__pycache__|test|tests|site-packages|idlelib|tkinter|turtledemo|ensurepip|lib2to3|config-[^/]*)(/|$)"
)
PYTHON = "/usr/bin/python3"


def root_file_system(content: Tools | str) -> IO[bytes]:
    """A tar of it, in a temporary file: with that Node and OpenClaw, or that program in Node's place."""
    raw = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked for it closes it
    with tarfile.open(fileobj=raw, mode="w") as tar:
        _folder(tar, "tmp", 0o1777)
        for name in ("run/ocmt", "proc", "sys", "dev", "home/agent", "etc", "usr/bin"):
            _folder(tar, name)
        _python(tar)
        shell = Path("/bin/bash").resolve()
        _programs(tar, [shell, *map(Path, ("/usr/bin/sleep", "/usr/bin/setsid"))])
        _link(tar, "bin", "usr/bin")
        _link(tar, "usr/bin/sh", shell.name)
        for name in ("main.py", "held_still.mjs"):
            tar.add(SUPERVISOR.with_name(name), f"supervisor/{name}")
        if isinstance(content, str):
            _file(tar, "opt/node/bin/node", f"#!{PYTHON} -IS\n{content}", 0o755)
            _file(tar, "opt/openclaw/node_modules/openclaw/openclaw.mjs", "", 0o644)
        else:
            _programs(tar, [], needed_by=[content.node])
            _file(tar, "opt/node/bin/node", content.node.read_bytes(), 0o755)
            tar.add(content.openclaw, "opt/openclaw")
    raw.seek(0)
    return raw


def _python(tar: tarfile.TarFile) -> None:
    """At its own path, for it finds its library by that, and at the one that the supervisor is run by."""
    program = own_python()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    extensions = [*library.glob("lib-dynload/*.so")]
    _programs(tar, [program], needed_by=extensions)
    tar.add(
        library,
        str(library).lstrip("/"),
        filter=lambda one: None if _LEFT_OUT.search("/" + one.name) else one,
    )
    if str(program) != PYTHON:
        _link(tar, PYTHON.lstrip("/"), str(program))


def _programs(tar: tarfile.TarFile, programs: list[Path], *, needed_by: Iterable[Path] = ()) -> None:
    libraries: set[str] = set()
    for one in (*programs, *needed_by):
        listing = subprocess.run(["ldd", one], capture_output=True, text=True, check=False).stdout
        libraries |= set(re.findall(r"(/\S+) \(0x", listing))
    known = set(tar.getnames())
    for path in (*map(str, programs), *sorted(libraries)):
        real = Path(path).resolve()
        for name in {path, str(real)}:
            if name.lstrip("/") not in known:
                _file(tar, name.lstrip("/"), real.read_bytes(), 0o755)
                known.add(name.lstrip("/"))


def _folder(tar: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _file(tar: tarfile.TarFile, name: str, content: str | bytes, mode: int) -> None:
    data = content.encode() if isinstance(content, str) else content
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


async def _ask(url: str, method: str, path: str, body: IO[bytes] | None = None) -> int:
    connector = aiohttp.UnixConnector(url.removeprefix("unix://"))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=100)) as session,
        session.request(method, f"http://docker{path}", data=body) as answer,
    ):
        await answer.read()
        return answer.status


async def answers(url: str) -> bool:
    """Whether a daemon is there."""
    try:
        return await _ask(url, "GET", "/_ping") == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def make_image(url: str, content: Tools | str) -> str:
    """The name of a new image of that content (see `root_file_system`), `ocmt-test-…`."""
    name = f"ocmt-test-{uuid4().hex[:12]}"  # podman's import knows no tags
    with root_file_system(content) as tar:
        assert await _ask(url, "POST", f"/images/create?fromSrc=-&repo={name}", tar) == 200
    return name


async def remove_image(url: str, image: str) -> None:
    """Remove it, if it is there."""
    assert await _ask(url, "DELETE", f"/images/{image}?force=true") in (200, 404)
