"""Runs the tools of the set-up, keeps all they print in one log, and says plainly why one failed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ocmt.errors import SetupProblem
from ocmt.setup.faults import advice

_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_TAIL = 20_000


class Commands:
    """Runs commands with `environment`, appending their output to `log`.

    `held` are file descriptors that the commands inherit: the set-up's lock is one, so that a tool that
    outlives a killed set-up keeps the next one from working in the same folders.
    """

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.environment = dict(environment)
        self.held: list[int] = []

    def run(
        self, argv: Sequence[str | Path], what: str, *, cwd: Path, timeout: float, path: Sequence[Path] = ()
    ) -> str:
        """The command's output (both streams). `path`: folders to find programs in first.

        Raises: SetupProblem, which names `what` failed, what to do and where the log is; KeyboardInterrupt.
        """
        environment = dict(self.environment)
        environment["PATH"] = os.pathsep.join([*map(str, path), environment.get("PATH", os.defpath)])
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(map(str, argv))}\n".encode())
            log.flush()
            before = log.tell()
            try:
                code = subprocess.run(  # noqa: S603 (our own argument lists, no shell)
                    [str(word) for word in argv],
                    cwd=cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                    pass_fds=self.held,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise self.problem(what, f"It was not done after {timeout / 60:.0f} minutes.") from None
            except OSError as error:
                raise self.problem(what, f"{argv[0]} cannot be started: {error.strerror}.") from error
        with self.log.open("rb") as printed:
            printed.seek(max(before, printed.seek(0, os.SEEK_END) - _TAIL))
            output = printed.read().decode(errors="replace")
        if code in (-signal.SIGINT, 128 + signal.SIGINT):
            raise KeyboardInterrupt
        if code != 0:
            raise self.problem(what, advice(output))
        return output

    def problem(self, what: str, why: str) -> SetupProblem:
        """The error that says what failed, what to do, and where all the output is."""
        return SetupProblem(f"{what} failed. {why}\nAll output: {self.log}")


def tool_environment(given: Mapping[str, str], *, python: str, project: Path) -> dict[str, str]:
    """The environment for uv and npm: people's proxies, mirrors and certificates reach both.

    `python` is the interpreter that the virtual environment is made from.
    """
    environment = dict(given)
    for name in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "UV_PROJECT", "NODE_OPTIONS"):
        environment.pop(name, None)
    environment.update(
        UV_PYTHON=python,
        UV_PYTHON_DOWNLOADS="never",
        UV_PROJECT_ENVIRONMENT=str(project / ".venv"),
        UV_NO_PROGRESS="1",
        NO_COLOR="1",
        npm_config_update_notifier="false",
    )
    if mirror := given.get("UV_DEFAULT_INDEX") or given.get("PIP_INDEX_URL"):
        environment["UV_DEFAULT_INDEX"] = mirror
    if certificates := given.get("SSL_CERT_FILE"):
        environment.setdefault("NODE_EXTRA_CA_CERTS", certificates)
    elif _SYSTEM_CERTIFICATES.exists():
        # Both bring certificates of their own; the machine's may hold a company's too.
        environment.setdefault("UV_SYSTEM_CERTS", "1")
        environment.setdefault("NODE_USE_SYSTEM_CA", "1")
    return environment
