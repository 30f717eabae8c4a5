"""Gets uv, the one tool that installs everything Python, and has it make the virtual environment.

uv itself is pinned here by version and SHA-256: it is the only thing that the lock file cannot name.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import ssl
import subprocess
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

from ocmt.errors import SetupProblem
from ocmt.setup.faults import advice
from ocmt.setup.folders import discard, new_folder
from ocmt.setup.place import Place

VERSION = "0.13.9"
# machine → (wheel, SHA-256). Static builds, so that they run on any C library.
WHEELS = {
    "x86_64": (
        "uv-0.13.9-py3-none-musllinux_1_1_x86_64.whl",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    "aarch64": (
        "uv-0.13.9-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
}
_PYPI = "https://pypi.org/simple"
_MINUTES = 60.0


def get_uv(place: Place) -> tuple[Path, str]:
    """The path of a uv that is new enough, and where it came from: the machine, the cache or PyPI."""
    found = shutil.which("uv")
    if found and _new_enough(found):
        return Path(found), "from the machine"
    folder = place.cache / "uv" / VERSION
    if (folder / "uv").exists():
        return folder / "uv", "already there"
    wheel, sha256 = _wheel_for(platform.machine())
    with new_folder(folder) as partial:
        # People's pip knows their mirrors, proxies and credentials; many machines have no pip.
        source = _by_pip(place, wheel, partial) or _by_urllib(place, wheel, partial)
        content = (partial / wheel).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise place.commands.problem("Getting uv", advice("hash mismatch"))
        with zipfile.ZipFile(partial / wheel) as archive:
            (partial / "uv").write_bytes(archive.read(f"uv-{VERSION}.data/scripts/uv"))
        (partial / "uv").chmod(0o755)
        discard(partial / wheel)
    return folder / "uv", source


def sync(place: Place, uv: Path, groups: Collection[str]) -> str:
    """Makes the virtual environment what the lock says, with the dependency groups; returns what it did."""
    wanted = [word for group in sorted(groups) for word in ("--group", group)]
    # Tests start hundreds of processes, and not everywhere may the first one keep what it has compiled.
    compiled = ["--compile-bytecode"] if "dev" in groups else []
    environment = place.project / ".venv"
    mirror = place.commands.environment.get("UV_DEFAULT_INDEX", _PYPI).rstrip("/")
    if mirror == _PYPI:
        argv: Sequence[str | Path] = [uv, "sync", "--frozen", "--no-default-groups", *compiled, *wanted]
        output = _uv(place, argv, "Installing the Python libraries")
    else:
        # The lock names PyPI's own files, so a mirror is asked by name, version and hash instead.
        if not place.environment_python.exists():
            _uv(place, [uv, "venv", "--clear", environment], "Making the virtual environment")
        with new_folder(place.cache / "requirements") as partial:
            names = partial / "requirements.txt"
            export: list[str | Path] = ["--no-default-groups", *wanted, "--no-emit-project", "-o", names]
            _uv(place, [uv, "export", "--frozen", *export], "Reading uv.lock")
            into: list[str | Path] = ["--python", environment]
            _uv(
                place,
                [uv, "pip", "sync", *into, *compiled, "--require-hashes", names],
                "Installing the Python libraries",
            )
        output = _uv(
            place, [uv, "pip", "install", *into, "--no-deps", "-e", place.project], "Installing the project"
        )
    count = re.search(r"Installed (\d+) packages?", output)
    return f"{count[1]} packages installed" if count else "up to date"


def discard_moved_environment(place: Place) -> None:
    """Removes the virtual environment of a clone that was moved or copied: its scripts name the old place."""
    environment = place.project / ".venv"
    script = environment / "bin" / "ocmt"
    if script.exists() and str(environment) not in script.read_text()[:1024]:
        discard(environment)


@dataclass(frozen=True)
class Locked:
    """One package of uv.lock."""

    name: str
    version: str
    hashes: tuple[str, ...]


def locked(lock: Path, name: str) -> Locked:
    """The version and the wheels' hashes that uv.lock names for a package."""
    packages = tomllib.loads(lock.read_text())["package"]
    package = next(package for package in packages if package["name"] == name)
    return Locked(name, package["version"], tuple(wheel["hash"] for wheel in package["wheels"]))


def install_wheel(place: Place, uv: Path, wheel: Locked, folder: Path) -> None:
    """Unpacks the locked wheel into `folder`, files copied, readable by all."""
    folder.mkdir(exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(
        " ".join([f"{wheel.name}=={wheel.version}", *(f"--hash={each}" for each in wheel.hashes)])
    )
    argv: list[str | Path] = [uv, "pip", "install", "--python", place.python, "--target", folder]
    argv += ["--no-deps", "--no-build", "--link-mode", "copy", "--require-hashes", "-r", requirements]
    _uv(place, argv, f"Getting {wheel.name} {wheel.version}")
    discard(requirements)
    discard(folder / ".lock")  # uv's own, writable by all


def _uv(place: Place, argv: Sequence[str | Path], what: str) -> str:
    return place.commands.run(argv, what, cwd=place.project, timeout=30 * _MINUTES)


def _new_enough(program: str) -> bool:
    try:
        answer = subprocess.run(  # noqa: S603
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(r"uv (\d+)\.(\d+)", answer.stdout)
    return bool(found) and (int(found[1]), int(found[2])) >= tuple(map(int, VERSION.split(".")[:2]))  # type: ignore[index]


def _wheel_for(machine: str) -> tuple[str, str]:
    try:
        return WHEELS[machine]
    except KeyError:
        raise SetupProblem(
            f"For this machine ({machine}) install uv {VERSION} or newer yourself, so that `uv` is found: "
            "https://docs.astral.sh/uv/getting-started/installation/"
        ) from None


def _by_pip(place: Place, wheel: str, folder: Path) -> str | None:
    """Downloads the wheel with the machine's pip; None where pip is missing or does not manage it."""
    platform_tag = wheel.removesuffix(".whl").rpartition("-")[2].rpartition(".")[2]
    argv: list[str | Path] = [place.python, "-m", "pip", "download", f"uv=={VERSION}", "--no-deps"]
    argv += [
        "--only-binary=:all:",
        "--platform",
        platform_tag,
        "--no-input",
        "--retries",
        "1",
        "--dest",
        folder,
    ]
    try:
        place.commands.run(argv, "pip", cwd=folder, timeout=5 * _MINUTES)
    except SetupProblem:
        return None
    return "by pip" if (folder / wheel).exists() else None


def _by_urllib(place: Place, wheel: str, folder: Path) -> str:
    """Downloads the wheel from the package index (PyPI, or the mirror that the environment names)."""
    index = place.commands.environment.get("UV_DEFAULT_INDEX", _PYPI).rstrip("/")
    try:
        page_url = f"{index}/uv/"
        page = _get(page_url, timeout=60, accept="application/vnd.pypi.simple.v1+json, text/html;q=0.5")
        (folder / wheel).write_bytes(_get(urljoin(page_url, _link(page, wheel)), timeout=600))
    except (OSError, ValueError) as error:
        why = str(getattr(error, "reason", error))
        raise place.commands.problem("Getting uv", f"{index}: {why}. {advice(why)}") from error
    return "from PyPI" if index == _PYPI else "from your mirror"


def _link(page: bytes, wheel: str) -> str:
    """The address of the wheel in an index page, JSON or HTML. Raises: ValueError."""
    text = page.decode()
    if text.lstrip().startswith("{"):
        found = [file["url"] for file in json.loads(text)["files"] if file["filename"] == wheel]
    else:
        found = re.findall(rf'href="([^"]*/{re.escape(wheel)}[^"]*)"', text)
    if not found:
        raise ValueError(f"it does not have {wheel}")
    return urldefrag(str(found[0])).url


def _get(url: str, *, timeout: float, accept: str = "*/*") -> bytes:
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise ValueError(f"{url} is not an address to download from")
    headers = {"Accept": accept, "User-Agent": f"ocmt-setup uv/{VERSION}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310

    def read(context: ssl.SSLContext | None) -> bytes:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:  # noqa: S310
            return bytes(answer.read())

    return _without_certificates(url, read)


def _without_certificates(url: str, read: Callable[[ssl.SSLContext | None], bytes]) -> bytes:
    """Reads; again without checking the server's certificate where the machine has none to check it by.

    A minimal Debian has no ca-certificates. What we download is accepted by its pinned SHA-256 alone, so an
    unchecked connection can at worst fail us; but it must not carry a password.
    """
    try:
        return read(None)
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLCertVerificationError) or urlsplit(url).password:
            raise
        return read(ssl._create_unverified_context())  # noqa: S323
