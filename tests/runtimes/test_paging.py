"""Paging out a process that is held still: its memory goes to swap and comes back whole; a wake ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ocmt.runtimes import paging

MEGABYTE = 1024**2
FILLED = 40 * MEGABYTE

needs_swap = pytest.mark.skipif(
    os.geteuid() != 0 or paging.room_in_swap() < 4 * FILLED,
    reason="paging out takes root and a machine with free swap",
)

HOLDER = f"""
import os, sys
held = os.urandom({MEGABYTE}) * {FILLED // MEGABYTE}
print(hash(held), flush=True)
sys.stdin.readline()
print(hash(held), flush=True)
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@needs_swap
def test_what_is_put_out_comes_back_whole(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    assert holder.stdin is not None
    before = holder.stdout.readline()
    os.kill(holder.pid, signal.SIGSTOP)
    paging.page_out([holder.pid], wanted=lambda: True)
    assert paging.swapped([holder.pid]) > FILLED * 0.9
    os.kill(holder.pid, signal.SIGCONT)
    paging.call_back([holder.pid])
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == before


@needs_swap
def test_a_wake_in_the_middle_ends_it(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    holder.stdout.readline()
    paging.page_out([holder.pid], wanted=lambda: False)
    assert paging.swapped([holder.pid]) == 0


def test_processes_that_are_gone_are_no_fault() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    paging.page_out([gone.pid], wanted=lambda: True)
    paging.call_back([gone.pid])
    assert paging.swapped([gone.pid]) == 0
