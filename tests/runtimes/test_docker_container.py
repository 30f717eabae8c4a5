"""What a container of ours is, and what is said of it: no daemon is needed for these."""

from __future__ import annotations

import json
import re
from pathlib import Path
from uuid import UUID

import pytest

from ocmt.errors import SetupProblem
from ocmt.runtimes.base import AgentSpec
from ocmt.runtimes.bubblewrap import gateway_command
from ocmt.runtimes.docker_container import (
    SUPERVISOR,
    Daemon,
    OwnFiles,
    bound_paths,
    describe,
    judge,
    read_about,
)
from ocmt.runtimes.guard import Guard, private_folders
from ocmt.runtimes.probe import NO_QUOTA

SPEC = AgentSpec(UUID(int=5), 1, "{}", {"ANTHROPIC_API_KEY": "a-very-secret-token"}, pids=77, cpus=1.5)
FILES = OwnFiles(Path("/data/agents/5"), uid=1_000_000, inside=1_000_000)
PROJECT = Path(__file__).parents[2]


def described(daemon: Daemon = Daemon()) -> dict[str, object]:  # noqa: B008 - frozen
    host: dict[str, object] = describe(SPEC, FILES, image="i", label="l", daemon=daemon)["HostConfig"]
    return host


def test_no_secret_is_in_a_description() -> None:
    text = json.dumps(describe(SPEC, FILES, image="i", label="l", daemon=Daemon()))
    assert "a-very-secret-token" not in text
    assert "Env" not in text


def test_user_ids_mean_the_same_inside_and_outside() -> None:
    assert "UsernsMode" not in described()
    assert described(Daemon(remaps=True))["UsernsMode"] == "host"
    assert described(Daemon(podman=True, rootless=True))["UsernsMode"] == "keep-id"


def test_what_docker_says_of_itself() -> None:
    full = {"MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True}
    assert read_about(full | {"SecurityOptions": ["name=seccomp,profile=default"]}).missing == (NO_QUOTA,)
    found = read_about({"SecurityOptions": ["name=rootless", "name=userns"], "PidsLimit": True})
    assert found.rootless
    assert found.remaps
    assert [line.partition(":")[0] for line in found.missing[:3]] == [
        "no hard memory limit",
        "no hard CPU limit",
        "no system call filter of Docker's own",
    ]


class TestTheWords:
    def test_a_hole_is_no_isolation(self) -> None:
        found = judge(Daemon(), holes=["uid is 0"], own_uid=True, hardened=True, filtered=True)
        assert found.level == "none"
        assert not found.is_boundary
        assert found.missing == ("uid is 0",)

    def test_all_that_there_can_be(self) -> None:
        found = judge(Daemon(), holes=[], own_uid=True, hardened=True, filtered=True)
        assert found.level == "docker"
        assert "a user id of its own on this machine" in found.guarantees
        assert "hard limits of memory, CPU and processes" in found.guarantees
        assert not found.missing

    @pytest.mark.parametrize("lacking", ["own_uid", "hardened", "filtered"])
    def test_what_is_missing_is_said(self, lacking: str) -> None:
        given = {"own_uid": True, "hardened": True, "filtered": True} | {lacking: False}
        assert len(judge(Daemon(), holes=[], **given).missing) == 1


def test_the_image_has_what_the_platform_runs_in_it() -> None:
    dockerfile = (PROJECT / "agent" / "Dockerfile").read_text()
    node, beside, _young, openclaw, *_ = gateway_command()
    assert f"/usr/local/bin/node {node}\n" in dockerfile
    assert f"COPY --from=openclaw {openclaw.split('/node_modules')[0]} " in dockerfile
    assert f"src/ocmt/supervisor/main.py {SUPERVISOR[3]}\n" in dockerfile
    assert f"src/ocmt/supervisor/held_still.mjs {beside.removeprefix('--import=')}\n" in dockerfile
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[0]) == list(SUPERVISOR)
    assert "package-lock.json" in dockerfile
    assert "npm ci" in dockerfile


def test_the_image_has_a_node_that_openclaw_accepts() -> None:
    from ocmt.setup.node import accepted

    for name in ("agent/Dockerfile", "deploy/Dockerfile"):
        (version,) = re.findall(r"^ARG NODE_IMAGE=node:([\d.]+)-", (PROJECT / name).read_text(), re.MULTILINE)
        assert accepted(version)


def test_the_compose_file_names_settings_that_there_are() -> None:
    from ocmt.settings import Settings

    compose = (PROJECT / "deploy" / "compose.yaml").read_text()
    names = set(re.findall(r"^ +OCMT_(\w+):", compose, re.MULTILINE))
    assert {"RUNTIME", "DATA_DIR"} <= names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", ["agent/Dockerfile", "deploy/Dockerfile"])
class TestSupply:
    """What the images are built from, and what may run while they are."""

    def test_no_install_script_runs(self, name: str) -> None:
        installs = re.findall(r"npm (?:ci|install).*", (PROJECT / name).read_text())
        assert installs
        assert all("--ignore-scripts" in line for line in installs)

    def test_base_images_can_be_others(self, name: str) -> None:
        """Pinned by a digest, or from a mirror."""
        text = (PROJECT / name).read_text()
        named = set(re.findall(r"^ARG (\w+_IMAGE)=\S+$", text, re.MULTILINE))
        used = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
        assert used
        assert all(image.strip("${}") in named and image.startswith("${") for image in used)

    def test_certificates_and_mirrors_reach_every_download(self, name: str) -> None:
        for stage in re.split(r"^FROM ", (PROJECT / name).read_text(), flags=re.MULTILINE)[1:]:
            if "npm ci" in stage or "pip install" in stage:
                assert "COPY deploy/certificates " in stage
            for tool, argument in (("npm ci", "NPM_CONFIG_REGISTRY"), ("apt-get", "DEBIAN_MIRROR")):
                assert tool not in stage or f"ARG {argument}" in stage
        ignored = (PROJECT / ".dockerignore").read_text()
        assert "!deploy/certificates\n" in ignored


def test_docker_compose_of_debian_12_can_read_the_file() -> None:
    """Its version 1.29.2 knows no other keys at the top; `name` belongs to version 2."""
    compose = (PROJECT / "deploy" / "compose.yaml").read_text()
    keys = set(re.findall(r"^(\w+):", compose, re.MULTILINE))
    assert keys == {"services", "networks", "volumes"}
    assert "name: ocmt_database" in compose  # as it was called when the file named the project


class TestWhatIsBound:
    """The same guard as for sandboxes, over the list that Docker is given."""

    @staticmethod
    def files(data: Path) -> OwnFiles:
        files = OwnFiles(data / "agents" / "5", uid=None, inside=1000)
        (data / "agents").mkdir(parents=True)
        files.prepare("{}")
        (data / "secrets").mkdir()
        return files

    def test_the_agents_own_folders_and_nothing_else(self, tmp_path: Path) -> None:
        files = self.files(tmp_path.resolve() / "data")
        description = describe(SPEC, files, image="i", label="l", daemon=Daemon())
        bound = bound_paths(description)
        assert set(bound) == set(files.bound)
        Guard(private_folders(tmp_path / "data"), files.bound).check(bound)

    @pytest.mark.parametrize("how", ["Mounts", "Binds"])
    @pytest.mark.parametrize("what", [".", "..", "secrets", "agents", "agents/5", "agents/5/logs", "link"])
    def test_anything_more_is_refused(self, what: str, how: str, tmp_path: Path) -> None:
        data = tmp_path.resolve() / "data"
        files = self.files(data)
        (data / "link").symlink_to(data / "secrets")
        description = describe(SPEC, files, image="i", label="l", daemon=Daemon())
        more = {"Type": "bind", "Source": str(data / what), "Target": "/more", "ReadOnly": True}
        added = more if how == "Mounts" else f"{data / what}:/more:ro"
        description["HostConfig"].setdefault(how, []).append(added)
        with pytest.raises(SetupProblem, match="No agent is started"):
            Guard(private_folders(data), files.bound).check(bound_paths(description))

    def test_an_own_folder_that_is_a_link_is_refused(self, tmp_path: Path) -> None:
        data = tmp_path.resolve() / "data"
        files = self.files(data)
        (files.root / "workspace").rmdir()
        (files.root / "workspace").symlink_to(data / "secrets")
        with pytest.raises(SetupProblem, match="No agent is started"):
            Guard(private_folders(data), files.bound).check(files.bound)
