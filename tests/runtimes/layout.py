"""One agent in one layout of folders, looked at from inside: `python -m tests.runtimes.layout JSON`.

The JSON: "data", "node", "openclaw", "python", "bwrap" (paths), "mounts" ([[source or "tmpfs", target], ...],
made in a mount namespace of this process's own), "umask", "make" ({path: content}, made after the mounts),
"secret" (a file that no agent may see), "unguarded" (what bubblewrap is told in addition, past the guard).
Prints a JSON object: "level", "summary", "missing", and, where an agent was started, what it "found".
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import structlog

from ocmt.errors import OcmtError
from ocmt.platform.clock import SystemClock
from ocmt.runtimes import sandbox
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.tools import Tools

from .conftest import REACHABLE, Counter, a_spec, inside

SEARCH = """
import os, subprocess
wanted, found = {wanted!r}, []
for top in os.listdir("/"):
    if top not in ("proc", "dev", "lib", "bin", "sbin", "lib64"):
        for folder, folders, names in os.walk("/" + top):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    about = os.lstat(path)
                except OSError:
                    continue
                if [about.st_dev, about.st_ino] == wanted:
                    found.append(path)
answer = dict(
    secret=found,
    node=sorted(os.listdir("/opt/node")) + sorted(os.listdir("/opt/node/bin")),
    npm=os.path.exists("/opt/node/bin/npm"),
    packages=[
        os.path.join(folder, name)
        for prefix in ("/opt", {prefix!r})
        for folder, _, names in os.walk(prefix)
        for name in names
        if folder.endswith("of-the-operator")
    ],
)
"""


def prepare(asked: dict[str, Any]) -> None:
    for source, target in asked.get("mounts", ()):
        Path(target).mkdir(parents=True, exist_ok=True)
        kind = ["-t", "tmpfs", "tmpfs"] if source == "tmpfs" else ["--bind", source]
        subprocess.run(["mount", *kind, target], check=True)
    for path, content in asked.get("make", {}).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
        Path(path).chmod(0o755)


def past_the_guard(arguments: list[str]) -> None:
    """Every sandbox gets these, too."""
    described = vars(sandbox)["sandbox_command"]

    def command(*given: Any, **named: Any) -> list[str]:
        program, *others = described(*given, **named)
        return [program, *arguments, *others]

    vars(sandbox)["sandbox_command"] = command


async def main(asked: dict[str, Any]) -> dict[str, Any]:
    data = Path(asked["data"])
    secret = Path(asked["secret"])
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("a secret of the platform's")
    secret.chmod(0o644)
    if asked.get("unguarded"):
        past_the_guard(asked["unguarded"])
    names = {name: Path(asked[name]) for name in ("node", "openclaw", "python", "bwrap")}
    runtime = SandboxRuntime(
        data_dir=data,
        tools=Tools(**names),
        doors={"broker": Counter().door},
        clock=SystemClock(),
        log=structlog.get_logger("layout"),
        view=REACHABLE.view,
    )
    try:
        isolation = await runtime.probe()
        said: dict[str, Any] = {
            "level": isolation.level,
            "summary": isolation.summary,
            "missing": isolation.missing,
        }
        spec = a_spec()
        try:
            await runtime.start(spec, {})
        except OcmtError as problem:
            return said | {"problem": problem.message, "detail": problem.detail}
        about = secret.stat()
        prefix = str(names["python"].parent.parent)
        code = SEARCH.format(wanted=[about.st_dev, about.st_ino], prefix=prefix)
        return said | {"found": await inside(runtime, spec.user_id, code)}
    finally:
        await runtime.close()


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    os.umask(order.get("umask", 0o022))
    prepare(order)
    if order.get("uid"):
        os.setgroups([])
        os.setgid(order["uid"])
        os.setuid(order["uid"])
    print(json.dumps(asyncio.run(main(order))))
