"""The compile cache of the set-up: made in a sandbox by itself, given to new agents."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ocmt.errors import Unavailable
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.prime import prime_compile_cache
from ocmt.runtimes.tools import Tools

from .conftest import Counter, a_spec, inside, make_runtime

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]


async def test_what_one_gateway_compiled_the_next_agents_find(
    folder: Path, tools: Tools, broker: Counter, view: View
) -> None:
    target = folder / "compile-cache"
    await prime_compile_cache(
        tools, target, config="{}", environment={"STAND_IN": "compiles"}, view=view, settle=0
    )
    assert (target / "v24" / "entry").read_text() == "compiled"
    assert not list(folder.glob(".priming*"))

    runtime = make_runtime(folder, dataclasses.replace(tools, compile_cache=target), broker, view)
    spec = a_spec()
    await runtime.start(spec, {})
    code = "answer = open('/tmp/node-compile-cache/v24/entry').read()"
    assert await inside(runtime, spec.user_id, code) == "compiled"
    await runtime.close()


async def test_a_gateway_that_does_not_start_leaves_nothing(folder: Path, tools: Tools, view: View) -> None:
    target = folder / "compile-cache"
    with pytest.raises(Unavailable):
        await prime_compile_cache(tools, target, config="{}", environment={"STAND_IN": "exit 1"}, view=view)
    assert not target.exists()
    assert not list(folder.glob(".priming*"))
