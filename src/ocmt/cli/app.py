"""The commands by name, and the edge where errors become one line and an exit code.

Commands are registered by import path, so that `ocmt --help` imports none of them. A command is a function
(or, with sub-commands, a cyclopts App); it may be async, returns None or its exit code, prints data by
`ocmt.cli.output`, and lets errors pass: they end here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, UnknownCommandError

from ocmt.errors import OcmtError

DONE, FAILED, MISUSED = 0, 1, 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141

app = App(
    name="ocmt",
    help="A private OpenClaw agent for every user.",
    version=lambda: version("ocmt"),
    version_format="plaintext",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
app.command("ocmt.cli.up:up", name="up", help="Run everything on this machine, on one port.")
app.command("ocmt.cli.serve:app", name="serve", help="Run one service by itself, as in a container.")
app.command("ocmt.cli.agents:app", name="agents", help="List, wake, hold, hibernate agents; read logs.")
app.command("ocmt.cli.channels:app", name="channels", help="Channels, what came in there, and run it again.")
app.command("ocmt.cli.users:app", name="users", help="Add, list and suspend users; make sign-in links.")
app.command("ocmt.cli.sign_up:app", name="sign-up", help="Who may make an account.")
app.command("ocmt.cli.audit:app", name="audit", help="Verify and export the audit log.")
app.command("ocmt.cli.keys:app", name="keys", help="Rotate the keys that sign access tokens.")
app.command("ocmt.cli.vault:app", name="vault", help="Rotate the keys that seal what users store.")
app.command("ocmt.cli.plans:app", name="plans", help="What agents may use and when they sleep, by plan.")
app.command("ocmt.cli.revisions:app", name="revisions", help="Which OpenClaw agents run, and for whom.")
app.command("ocmt.cli.db:app", name="db", help="Bring the database's schema up to date.")
app.command("ocmt.cli.backup:app", name="backup", help="Everything in one encrypted file, and back from it.")
app.command("ocmt.cli.doctor:doctor", name="doctor", help="What works on this machine, and what does not.")
app.command("ocmt.cli.setup:setup", name="setup", help="Fetch what the agents need: Node.js, OpenClaw, …")


def run(arguments: Sequence[str]) -> int:
    """Carry out a command; returns its exit code. Only a bug of ours leaves as an exception."""
    # Whatever the shell or the service manager has set: agents' user ids must reach what is made for them.
    # What is secret is made with a mode of its own, everywhere.
    os.umask(0o022)
    try:
        code = app(list(arguments))
        sys.stdout.flush()
    except CycloptsError as error:
        _complain(f"{_misuse(error)} Try `{' '.join(['ocmt', *(error.command_chain or ()), '--help'])}`.")
        return MISUSED
    except OcmtError as error:
        _complain(_one_line(error.message))
        return FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader (`ocmt … | head`) has gone; keep the interpreter from flushing into the pipe at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code if isinstance(code, int) else DONE


def _misuse(error: CycloptsError) -> str:
    if isinstance(error, UnknownCommandError):  # its own words would import every command to suggest one
        return f"There is no command {(error.unused_tokens or ['like this'])[0]}."
    return _one_line(str(error))


def _complain(line: str) -> None:
    print(f"ocmt: {line}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())
