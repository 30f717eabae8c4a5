"""Control groups: what is found on different machines."""

from __future__ import annotations

from pathlib import Path

from ocmt.runtimes.cgroups import find_hierarchy


def a_group(folder: Path) -> Path:
    """A folder that looks enough like a control group: the kernel would make the files with it."""
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").touch()
    return folder


def test_version_1_controllers_each_have_a_mount(tmp_path: Path) -> None:
    mounts = []
    for name in ("memory", "cpu", "pids"):
        a_group(tmp_path / name / "ocmt-x")
        mounts.append(f"cgroup {tmp_path / name} cgroup rw,relatime,{name} 0 0")
    hierarchy = find_hierarchy("ocmt-x", mounts="\n".join(mounts))
    assert hierarchy.missing == ()

    joined = hierarchy.group("a").create(memory_bytes=1024, cpus=1.5, pids=7)
    assert len(joined) == 3
    values = {name: (tmp_path / name / "ocmt-x" / "a") for name in ("memory", "cpu", "pids")}
    assert (values["memory"] / "memory.limit_in_bytes").read_text() == "1024"
    assert (values["cpu"] / "cpu.cfs_quota_us").read_text() == "150000"
    assert (values["pids"] / "pids.max").read_text() == "7"


def test_version_2_has_one_mount_and_hands_controllers_down(tmp_path: Path) -> None:
    root = a_group(tmp_path / "cgroup")
    a_group(root / "ocmt-x")
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    hierarchy = find_hierarchy("ocmt-x", mounts=f"cgroup2 {root} cgroup2 rw 0 0")
    assert hierarchy.missing == ()
    assert (root / "ocmt-x" / "cgroup.subtree_control").read_text() in ("+memory", "+cpu", "+pids")

    joined = hierarchy.group("a").create(memory_bytes=1024, cpus=0.5, pids=7)
    assert joined == [root / "ocmt-x" / "a" / "cgroup.procs"]
    group = root / "ocmt-x" / "a"
    assert (group / "memory.max").read_text() == "1024"
    assert (group / "cpu.max").read_text() == "50000 100000"
    assert (group / "pids.max").read_text() == "7"


def test_what_is_not_there_is_said() -> None:
    hierarchy = find_hierarchy("ocmt-x", mounts="proc /proc proc rw 0 0")
    assert len(hierarchy.missing) == 3
    assert hierarchy.group("a").create(memory_bytes=1, cpus=1, pids=1) == []
    assert hierarchy.group("a").remove()
    assert not hierarchy.group("a").kill()
