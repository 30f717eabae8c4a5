"""How much memory all awake agents may have together."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocmt.bootstrap.runtime import memory_for_agents
from ocmt.runtimes.spares import SPARE_BYTES
from ocmt.settings import load_settings

GIB = 1024**3


@pytest.fixture(autouse=True)
def no_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCMT_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("OCMT_RUNTIME", raising=False)


def test_warm_spares_are_none_unless_asked_for() -> None:
    assert load_settings().warm_spares == 0
    assert memory_for_agents(load_settings(agents_memory=8 * GIB)) == 8 * GIB


def test_what_warm_spares_take_is_not_the_agents() -> None:
    given = load_settings(agents_memory=8 * GIB, warm_spares=2)
    assert memory_for_agents(given) == 8 * GIB - 2 * SPARE_BYTES


def test_one_agent_can_always_be_awake() -> None:
    assert memory_for_agents(load_settings(agents_memory=3 * GIB, warm_spares=4)) == 2 * GIB


def test_where_there_can_be_no_spares_nothing_is_kept_for_them() -> None:
    given = load_settings(agents_memory=8 * GIB, warm_spares=2, runtime="docker")
    assert memory_for_agents(given) == 8 * GIB
