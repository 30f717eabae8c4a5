"""Write the tables of docs/reference/channels.md from the tables of the program.

.venv/bin/python scripts/channel_tables.py
"""

from __future__ import annotations

from pathlib import Path

from ocmt.channels.schema import GITHUB, SLACK_BLOCKS, SLACK_FIELDS, SLACK_SUBTYPES, TELEGRAM, How, Table
from ocmt.chat.controls import COMMANDS, STOP_PHRASES, Does

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "channels.md"
_DOES = {
    Does.STOP: "stops the running answer of this conversation and what waits behind it, at once",
    Does.NEW: "stops as well; the next message begins a new conversation",
    Does.STATUS: "tells whether an answer is under way",
    Does.HELP: "lists these commands",
    Does.WHOAMI: "tells your name and id here",
    Does.START: "greets",
    Does.MESSAGE: "is passed on as text",
    Does.OWNER: "is refused in one line: only the owner can use it, in the web chat",
}
_HOW = {
    How.READ: "read",
    How.NAMED: "named",
    How.REFUSED: "refused",
    How.USED: "used",
    How.IGNORED: "ignored",
}


def tables() -> dict[str, str]:
    """Each table by the name of its place in the page."""
    return {
        "phrases": ", ".join(f"`{phrase}`" for phrase in sorted(STOP_PHRASES)) + ".",
        "commands": _commands(),
        "telegram": _of(TELEGRAM, "Field"),
        "slack-fields": _of(SLACK_FIELDS, "Field"),
        "slack-subtypes": _of(SLACK_SUBTYPES, "Subtype"),
        "slack-blocks": _of(SLACK_BLOCKS, "Block"),
        "github": _of(GITHUB, "Event and action"),
    }


def filled(page: str) -> str:
    """The page with its tables as they are now."""
    for name, table in tables().items():
        begin, end = f"<!-- {name}: scripts/channel_tables.py -->", f"<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise SystemExit(f"{PAGE.name} has no place for {name}.")
        page = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return page


def _commands() -> str:
    rows = [
        f"| {', '.join(f'`/{name}`' for name, one in sorted(COMMANDS.items()) if one is does)} | {what} |"
        for does, what in _DOES.items()
    ]
    return "\n".join(["| Command | Over a channel it |", "| --- | --- |", *rows])


def _of(table: Table, head: str) -> str:
    """Rows with the same answer are one."""
    same: dict[tuple[How, str], list[str]] = {}
    for name, answer in table.items():
        same.setdefault(answer, []).append(name)
    rows = [
        f"| {', '.join(f'`{name}`' for name in names)} | {_HOW[how]} | {remark} |"
        for (how, remark), names in same.items()
    ]
    return "\n".join([f"| {head} | | |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
