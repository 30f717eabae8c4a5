"""Which paths may be bound: unit tests, without a sandbox. Real ones are in test_mounts.py."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from ocmt.errors import SetupProblem
from ocmt.runtimes.bubblewrap import bound_paths
from ocmt.runtimes.guard import DATA, Guard, Private, home_folders, private_folders


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path.resolve()
    for name in ("home/.local/bin", "home/data/agents/1/home", "home/data/secrets", "elsewhere", "agents"):
        (place / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(place / "home"))
    return place


def refused(place: Path, path: Path, *permitted: Path) -> bool:
    guard = Guard(private_folders(place / "home" / "data"), permitted)
    try:
        guard.check([path])
    except SetupProblem:
        return True
    return False


def test_a_refusal_names_both_and_says_what_to_do(place: Path) -> None:
    guard = Guard(private_folders(place / "home" / "data"))
    with pytest.raises(SetupProblem) as problem:
        guard.check([place / "home" / ".local"])
    assert str(place / "home/.local") in problem.value.message
    assert f"the home folder, {place / 'home'}" in problem.value.message
    assert "OCMT_DATA_DIR" in problem.value.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("elsewhere", False),
        ("", True),  # contains both
        ("home", True),
        ("home/.local", True),
        ("home/.local/bin", True),
        ("home/data", True),
        ("home/data/agents", True),
        ("home/data/secrets", True),
        ("home/data/agents/1/home", True),
        ("missing", False),
    ],
)
def test_without_a_permit(place: Path, name: str, *, expected: bool) -> None:
    assert refused(place, place / name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("home/.local/bin", False), ("home/data/agents/1/home", False), ("home", True), ("home/data", True)],
)
def test_a_permit_is_for_what_lies_inside_and_never_for_the_folder_itself(
    place: Path, name: str, *, expected: bool
) -> None:
    assert refused(place, place / name, place / name) is expected


def test_a_permit_is_exact(place: Path) -> None:
    own = place / "home/data/agents/1/home"
    assert refused(place, own.parent, own)
    assert refused(place, place / "home/data/secrets", own)
    (own / "below").mkdir()
    assert refused(place, own / "below", own)


def test_a_link_permits_nothing(place: Path) -> None:
    link = place / "home/data/agents/1/workspace"
    link.symlink_to(place / "home/data/secrets")
    assert refused(place, link, link)
    outside = place / "elsewhere" / "node"
    outside.symlink_to(place / "home/data")
    assert refused(place, outside, outside)


def test_a_verdict_is_not_kept_when_a_name_leads_elsewhere(place: Path) -> None:
    link = place / "elsewhere" / "node"
    link.symlink_to(place / "agents")
    assert not refused(place, link)
    link.unlink()
    link.symlink_to(place / "home/data/secrets")
    assert refused(place, link)


def test_one_agents_permit_is_not_anothers(place: Path) -> None:
    own = place / "home/data/agents/1/home"
    assert not refused(place, own, own)
    assert refused(place, own, place / "home/data/agents/2/home")


def test_a_data_folder_that_is_still_to_be_made_counts(place: Path) -> None:
    guard = Guard([Private(place / "elsewhere" / "a" / "b", DATA)])
    with pytest.raises(SetupProblem):
        guard.check([place / "elsewhere"])
    guard.check([place / "agents"])


def test_the_parts_of_a_folder_leave_out_what_is_private(place: Path) -> None:
    (place / "link").symlink_to("elsewhere")
    guard = Guard(private_folders(place / "home" / "data"))
    assert guard.parts(place / "elsewhere") == [place / "elsewhere"]
    assert guard.parts(place) == [place / "agents", place / "elsewhere", place / "link"]
    assert guard.parts(place / "home") == [place / "home"]
    with pytest.raises(SetupProblem):
        guard.check(guard.parts(place / "home"))


@pytest.mark.parametrize("home", ["/", "/usr", "/usr/sbin", "/nonexistent-folder", "", "relative"])
def test_a_home_folder_that_is_none(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts of services have such: nothing could be bound if these were private."""
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: (_ for _ in ()).throw(KeyError()))
    assert home_folders() == []


def test_both_home_folders_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    real = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    assert tmp_path.resolve() in home_folders()
    assert real in home_folders() or not real.is_dir()


def test_every_bind_of_a_command_line_is_found() -> None:
    command = [
        "--ro-bind",
        "/a",
        "/b",
        "--bind",
        "/c",
        "/d",
        "--dev-bind-try",
        "/e",
        "/f",
        "--symlink",
        "/g",
        "/h",
    ]
    assert bound_paths(command) == [Path("/a"), Path("/c"), Path("/e")]
