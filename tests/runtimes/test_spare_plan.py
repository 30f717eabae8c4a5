"""From the record of one start to what a spare loads ahead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocmt.errors import Unavailable
from ocmt.runtimes.spare_plan import plan_of, read_plan, write_plan

DIST = "/opt/openclaw/node_modules/openclaw/dist"
GATEWAY = ["node", "/opt/openclaw/node_modules/openclaw/openclaw.mjs", "gateway", "run"]
LIMITS = {"maxOldGenerationSizeMb": 512}


def notes(argv: list[str], *facts: dict[str, Any], main: bool = False, given: bool = False) -> str:
    first = {"argv": argv, "main": main, "given": given, "limits": {} if main else LIMITS}
    return "\n".join(json.dumps(fact) for fact in (first, *facts))


def module(name: str) -> str:
    return f"file://{DIST}/{name}"


RECORD = {
    "7-0.jsonl": notes(
        GATEWAY,
        {"modules": [module("../openclaw.mjs"), module("entry.js"), module("b.mjs"), module("a.mjs")]},
        {"child": [f"{DIST}/reader.js", "session"], "stdio": ["ignore", "pipe", "pipe", "ipc"]},
        {"child": [f"{DIST}/reader.js", "session"], "stdio": ["ignore", "pipe", "pipe", "ipc"]},
        {"cache": "/tmp/cache"},
        {"modules": [module("late.mjs"), module("a.mjs"), module("facts.json")]},
        main=True,
    ),
    "7-1.jsonl": notes(["node", "[worker eval]"]),
    "7-2.jsonl": notes(["node", f"{DIST}/store.js"], {"modules": [module("store.js"), module("a.mjs")]}),
    "7-3.jsonl": notes(["node", f"{DIST}/store.js"], {"modules": [module("store.js"), module("c.mjs")]}),
    "7-4.jsonl": notes(["node", f"{DIST}/heart.js"], {"modules": [module("heart.js")]}, given=True),
    "9-0.jsonl": notes(["node", f"{DIST}/reader.js", "session"], {"modules": [module("r.mjs")]}, main=True),
}


def test_modules_come_in_the_order_in_which_they_were_loaded_without_what_starts_openclaw() -> None:
    plan = plan_of(RECORD, "2026")
    assert plan["openclaw"] == "2026"
    assert plan["cache"] == "/tmp/cache"
    assert plan["modules"] == [module("b.mjs"), module("a.mjs"), module("late.mjs")]


def test_threads_of_one_kind_load_together_what_any_of_them_did() -> None:
    """But not those that were told something at their birth, nor those made of a line of text."""
    modules = [module("a.mjs"), module("c.mjs")]
    assert plan_of(RECORD, "2026")["workers"] == [
        {"entry": module("store.js"), "modules": modules, "count": 2, "limits": LIMITS}
    ]


def test_processes_that_wait_for_a_message_are_kept() -> None:
    stdio = ["ignore", "pipe", "pipe", "ipc"]
    assert plan_of(RECORD, "2026")["children"] == [
        {"argv": [f"{DIST}/reader.js", "session"], "stdio": stdio, "count": 2}
    ]


def test_a_record_without_a_gateway_is_none() -> None:
    with pytest.raises(Unavailable):
        plan_of({"9-0.jsonl": RECORD["9-0.jsonl"]}, "2026")


def test_a_plan_is_good_for_its_own_openclaw_only(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert read_plan(path, "2026") is None
    write_plan(path, {"openclaw": "2026"})
    assert read_plan(path, "2026") == {"openclaw": "2026"}
    assert read_plan(path, "2027") is None
    path.write_text("torn {")
    assert read_plan(path, "2026") is None
