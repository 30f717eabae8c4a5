"""When `make test` leaves out the journeys: only where nothing has changed since they passed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def journeys() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "journeys.py"
    spec = importlib.util.spec_from_file_location("journeys", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("src/ocmt/a.py", "tests/test_a.py", "ui/src/a.ts", "uv.lock", "tools.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    return tmp_path


def marks(journeys: ModuleType, project: Path) -> str:
    return str(journeys.fingerprint(project, project / "tools.json"))


@pytest.mark.parametrize("name", ["src/ocmt/a.py", "tests/test_a.py", "ui/src/a.ts", "uv.lock", "tools.json"])
def test_any_change_counts(journeys: ModuleType, project: Path, name: str) -> None:
    before = marks(journeys, project)
    (project / name).write_text("2")
    assert marks(journeys, project) != before


def test_a_new_file_a_lost_one_and_another_name_count(journeys: ModuleType, project: Path) -> None:
    seen = {marks(journeys, project)}
    (project / "src/ocmt/b.py").write_text("1")
    seen.add(marks(journeys, project))
    (project / "src/ocmt/b.py").rename(project / "src/ocmt/c.py")
    seen.add(marks(journeys, project))
    (project / "src/ocmt/a.py").unlink()
    seen.add(marks(journeys, project))
    assert len(seen) == 4


def test_what_a_run_leaves_behind_does_not_count(journeys: ModuleType, project: Path) -> None:
    before = marks(journeys, project)
    for name in ("src/ocmt/__pycache__/a.pyc", "ui/node_modules/x/a.js", "ui/dist/a.js", ".pytest_cache/x"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("1")
    assert marks(journeys, project) == before
