"""The set-up from its start to its end: what `make setup` runs, and `make run` before it starts anything.

`main` first asks whether anything changed since the last set-up, which must be quick, because every `make`
command asks. The steps are each idempotent, so a set-up that was interrupted is simply run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ocmt.errors import SetupProblem
from ocmt.setup import bubblewrap, first_start, interface, node, openclaw, postgres, uv
from ocmt.setup.commands import Commands, tool_environment
from ocmt.setup.console import Console
from ocmt.setup.faults import advice_for
from ocmt.setup.folders import (
    cache_folder,
    data_folder,
    digest,
    discard,
    discard_leftovers,
    files_below,
    fingerprint,
    home,
    make_cache,
    only_one,
    read_json,
    require_space,
    write_whole,
)
from ocmt.setup.place import Place

_STEPS = 8
_LIBRARIES_SPACE = 400_000_000
_NOT_SOURCES = frozenset({"__pycache__"})


def main(argv: Sequence[str]) -> int:
    """Sets up the clone, then becomes the command that follows `--`, if any. Returns the exit code."""
    options = _options(argv)
    project = Path(__file__).resolve().parents[3]
    try:
        set_up(project, groups=frozenset(options.group), quiet=bool(options.command))
    except KeyboardInterrupt:
        print("\nStopped. Run the same again to go on from here.", file=sys.stderr)
        return 130
    except SetupProblem as problem:
        print(f"\nSet-up stopped: {problem.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nSet-up stopped: {error}. {advice_for(error)}", file=sys.stderr)
        return 1
    if options.command:
        os.chdir(project)
        os.execvp(options.command[0], options.command)  # noqa: S606
    return 0


def set_up(project: Path, *, groups: frozenset[str] = frozenset(), quiet: bool = False) -> None:
    """Brings the clone and the cache up to date, with the dependency groups (`dev`, `docs`).

    `quiet`: says nothing when there was nothing to do. Raises: SetupProblem, OSError.
    """
    if not (project / "uv.lock").exists():
        raise SetupProblem("Set-up needs a clone of the repository; this is an installed package.")
    os.environ["HOME"] = str(home())
    cache = cache_folder()
    stamp = project / ".venv" / "setup.json"
    known = read_json(stamp)
    if _nothing_changed(project, cache, known, groups):
        if not quiet:
            print("Everything is set up.")
        return
    # Agents run under other user ids where the platform is root: they must be able to read all this.
    umask = os.umask(0o022)
    try:
        _set_up(project, cache, stamp, groups)
    finally:
        os.umask(umask)


def _set_up(project: Path, cache: Path, stamp: Path, groups: frozenset[str]) -> None:
    make_cache(cache)
    missing = _LIBRARIES_SPACE + (0 if openclaw.folder_for(project, cache).exists() else openclaw.SPACE)
    require_space(cache, missing, "Set-up")
    with only_one(cache, lambda: print("Waiting for another set-up of this user …", flush=True)) as lock:
        known = read_json(stamp)  # another set-up of this clone may just have been here
        if not _nothing_changed(project, cache, known, groups):
            _run_steps(_place(project, cache, lock), groups | frozenset(known.get("groups", [])), stamp)


def _run_steps(place: Place, groups: frozenset[str], stamp: Path) -> None:
    console = Console(_STEPS)
    discard_leftovers(place.cache)
    uv.discard_moved_environment(place)
    discard(stamp)
    libraries = _libraries(place.project)

    with console.step(f"uv {uv.VERSION}") as step:
        uv_program, step.result = uv.get_uv(place)
    with console.step(f"Python {sys.version.split()[0]} and its libraries") as step:
        step.result = uv.sync(place, uv_program, groups)
    with console.step("Node.js") as step:
        found_node, source = node.get_node(place, uv_program)
        step.result = f"{found_node.version} {source}"
    if said := node.placement(found_node.program, data_folder()):
        console.say(said)
    with console.step("bubblewrap") as step:
        bwrap, step.result = bubblewrap.get_bubblewrap(place, uv_program)
    allowed = bubblewrap.sandbox_works(bwrap)
    with console.step(f"OpenClaw {openclaw.version(place.project)}") as step:
        agent, step.result = openclaw.get_openclaw(place, found_node, bwrap if allowed else None)
    with console.step("User interface") as step:
        step.result = interface.build_interface(place, found_node)
    with console.step("PostgreSQL") as step:
        database, step.result = postgres.get_postgres(place, uv_program)

    tools = {
        "node": str(found_node.program),
        "npm": str(found_node.npm),
        "openclaw": str(agent),
        "bwrap": str(bwrap),
        "compile_cache": None,
        "postgres": str(database) if database else None,
    }
    _note(place, tools)
    with console.step("First start of OpenClaw, in a sandbox") as step:
        if allowed:
            primed, step.result = first_start.first_start(place, found_node, agent)
            _note(place, {**tools, "compile_cache": str(primed) if primed else None})
        else:
            step.result = "not possible"
            console.say(bubblewrap.NO_NAMESPACES)
    made = {
        "project": str(place.project),
        "groups": sorted(groups),
        "libraries": libraries,
        "sources": _sources(place.project),
        "tools": {path: fingerprint(Path(path)) for path in _programs(tools)},
    }
    write_whole(stamp, json.dumps(made, indent=2) + "\n")


def _note(place: Place, tools: Mapping[str, str | None]) -> None:
    """Writes the manifest by which the platform finds the tools (`ocmt.runtimes.tools`)."""
    write_whole(place.cache / "tools.json", json.dumps(tools, indent=2) + "\n")


def _nothing_changed(project: Path, cache: Path, known: dict[str, object], groups: frozenset[str]) -> bool:
    """Whether the last set-up, of this clone and these groups, still stands. Takes milliseconds."""
    tools = known.get("tools")
    written = _programs(read_json(cache / "tools.json"))
    return (
        known.get("project") == str(project)
        and groups <= frozenset(known.get("groups", []))  # type: ignore[call-overload]
        and isinstance(tools, dict)
        and set(written) == set(tools)
        and all(fingerprint(Path(path)) == found is not None for path, found in tools.items())
        and openclaw.is_finished(Path(str(read_json(cache / "tools.json").get("openclaw"))))
        and (project / "ui" / "dist" / "index.html").exists()
        and (project / ".venv" / "bin" / "python").exists()
        and known.get("libraries") == _libraries(project)
        and known.get("sources") == _sources(project)
    )


def _programs(tools: Mapping[str, object]) -> list[str]:
    """The files whose change means that set-up must look again."""
    programs = [tools.get("node"), tools.get("npm"), tools.get("bwrap")]
    if tools.get("openclaw"):
        programs.append(f"{tools['openclaw']}/node_modules/openclaw/package.json")
    if tools.get("postgres"):
        programs.append(f"{tools['postgres']}/postgres")
    return [str(program) for program in programs if program]


def _libraries(project: Path) -> str:
    return digest(project, [project / "uv.lock", project / "pyproject.toml"])


def _sources(project: Path) -> str:
    here = Path(__file__).parent
    agent = [project / "agent" / "package.json", project / "agent" / "package-lock.json"]
    parts = [digest(here, files_below(here, without=_NOT_SOURCES)), digest(project, agent)]
    return " ".join([*parts, interface.sources(project)])


def _place(project: Path, cache: Path, lock: int) -> Place:
    python = Path(getattr(sys, "_base_executable", sys.executable))
    log = project / "setup.log"
    log.write_bytes(b"")
    commands = Commands(log, tool_environment(os.environ, python=str(python), project=project))
    commands.held.append(lock)
    return Place(project=project, cache=cache, python=python, commands=commands)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ocmt setup", description="Gets what this machine lacks.")
    parser.add_argument(
        "--group", action="append", default=[], help="a dependency group to install too: dev, docs"
    )
    parser.add_argument(
        "command", nargs="*", metavar="-- COMMAND", help="what to run then, in place of this program"
    )
    words = list(argv)
    before, after = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    options = parser.parse_args(before)
    options.command = [*options.command, *after]
    return options
