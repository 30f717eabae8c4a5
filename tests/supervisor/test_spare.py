"""`spare.mjs` in the Node that the set-up has installed, with a few modules in place of OpenClaw."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocmt.runtimes.bubblewrap import SUPERVISOR
from ocmt.testing.installed import installed_tools

DOUBLE = Path(__file__).with_name("openclaw_double")


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """The supervisor's end, and the spare that has loaded everything."""
    for name in ("held_still.mjs", "spare.mjs", "spare_worker.mjs"):
        shutil.copy(SUPERVISOR.with_name(name), tmp_path)
    for file in DOUBLE.iterdir():
        shutil.copy(file, tmp_path)
    here = f"file://{tmp_path}"
    worker = {"entry": f"{here}/store.js", "modules": [f"{here}/heavy.mjs"], "count": 1, "limits": {}}
    reader = {"argv": [f"{tmp_path}/reader.js"], "stdio": ["ignore", "pipe", "pipe", "ipc"], "count": 1}
    plan = {
        "cache": str(tmp_path / "cache"),
        "modules": [f"{here}/heavy.mjs", f"{here}/gone.mjs"],
        "workers": [worker],
        "children": [reader],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    node = installed_tools().node
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    onto_3 = f'exec "$@" 3<&{theirs.fileno()}'
    with ours:
        popen = subprocess.Popen(
            ["/bin/bash", "-c", onto_3, "spare", node, tmp_path / "spare.mjs"],
            pass_fds=[theirs.fileno()],
            env={"PATH": "/usr/bin:/bin", "BORN": "as a spare"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        with popen:
            try:
                assert ours.recv(16) == b"ready\n"
                yield ours, popen
            finally:
                popen.kill()


def taken(ours: socket.socket, popen: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """What it says of itself as that agent's gateway."""
    order = {
        "command": [
            "node",
            "--import=/supervisor/held_still.mjs",
            "--max-semi-space-size=4",
            str(folder / "openclaw.mjs"),
            "gateway",
            "run",
        ],
        "environment": {"SECRET": "of this user", "HOME": "/home/agent"},
        "directory": str(folder),
    }
    ours.sendall(json.dumps(order).encode() + b"\n")
    assert ours.recv(16) == b"taken\n"
    output, faults = popen.communicate(timeout=20)
    assert "gone.mjs" in faults  # what could not be loaded ahead is no reason to give up
    found: dict[str, Any] = json.loads(output)
    return found


def test_it_becomes_the_gateway_with_the_agents_environment_folder_and_arguments(
    supervisor: tuple[socket.socket, subprocess.Popen[str]], tmp_path: Path
) -> None:
    seen = taken(*supervisor, tmp_path)
    assert seen["argv"] == [str(tmp_path / "openclaw.mjs"), "gateway", "run"]
    assert seen["folder"] == str(tmp_path)
    respawned = {"OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED": "1"}
    assert seen["env"] == {"SECRET": "of this user", "HOME": "/home/agent"} | respawned


def test_what_it_loaded_is_not_loaded_again_and_never_saw_a_secret(
    supervisor: tuple[socket.socket, subprocess.Popen[str]], tmp_path: Path
) -> None:
    seen = taken(*supervisor, tmp_path)
    assert seen["loaded"] == 1
    assert seen["early"]["BORN"] == "as a spare"
    assert "SECRET" not in seen["early"]


def test_threads_and_processes_are_given_out_once_and_then_made_anew(
    supervisor: tuple[socket.socket, subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A thread that waited sees the agent's environment like one that is made for it."""
    seen = taken(*supervisor, tmp_path)
    assert seen["isWorker"]
    assert seen["told"] == [["hi", "of this user", None]] * 2
    assert seen["read"] == [["hi", "as a spare"], ["hi", None]]


def test_it_ends_with_its_supervisor(supervisor: tuple[socket.socket, subprocess.Popen[str]]) -> None:
    ours, popen = supervisor
    ours.close()
    assert popen.wait(10) == 1
