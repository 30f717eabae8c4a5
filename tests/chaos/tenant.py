"""A hostile tenant beside the load: its user and its agent do what is expensive, as fast as they can.

Nobody else may notice. Its accepted turns end once, as all others do, and after it has cleaned up, its agent
sleeps as all others do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

from ocmt.agents.service import Agents
from ocmt.chat.model import Turn
from ocmt.chat.service import Chat
from ocmt.errors import OcmtError
from ocmt.testing.gateway import Remark, Say, SendRaw, Step, UseTool
from ocmt.testing.world import World, folder_of

FLOOD = 2_000
LINKS = 5_000
LARGE = "x" * 200_000
FRAMES: tuple[str | bytes, ...] = (
    b"\x00\xff\xfe",
    "{",
    "[" * 50_000,
    '{"type": "event", "event": "chat", "payload": ' + "[" * 20_000 + "]" * 20_000 + "}",
    '{"type": "event", "event": "chat", "seq": 1e999, "payload": null}',
    '{"type": "event", "event": 7, "payload": {"runId": {}}}',
    '{"type": "res", "id": "no one asked", "ok": true, "payload": {}}',
    '{"type": "event", "event": "chat", "payload": {"state": "delta", "deltaText": "\\ud800"}}',
)
SCRIPTS: dict[str, tuple[Step, ...]] = {
    "tools": tuple(UseTool("exec", "run " + "y" * 200) for _ in range(FLOOD)),
    "remarks": tuple(Remark("z" * 500) for _ in range(FLOOD)),
    "pieces": tuple(Say("w") for _ in range(FLOOD)),
    "text": tuple(Say(LARGE) for _ in range(20)),
    **{f"frame {number}": (SendRaw(frame), Say("done")) for number, frame in enumerate(FRAMES)},
}


class Tenant:
    """One user who means no good, and that user's agent."""

    def __init__(self, chat: Chat, agents: Agents, world: World, user: UUID, dice: random.Random) -> None:
        self._chat = chat
        self._agents = agents
        self._world = world
        self._user = user
        self._dice = dice
        self.accepted: list[Turn] = []
        self.did: Counter[str] = Counter()

    async def run(self, until: float) -> None:
        """Do one harmful thing after the other."""
        kinds = [self._attack_by_answer, self._write_and_stop, self._open_conversations, self._wake_and_sleep]
        disk = [self._ignore_slowly, self._link, self._nest, self._misname]
        number = 0
        while time.monotonic() < until:
            number += 1
            what = self._dice.choice([*kinds, *kinds, *disk])
            self.did[what.__name__] += 1
            try:
                await what(number)
            except OcmtError:
                self.did["refused"] += 1
            except OSError:
                self.did["disk"] += 1  # the platform puts files in the place of these meanwhile
            await asyncio.sleep(self._dice.uniform(0, 0.1))

    def clean(self) -> None:
        """Remove from the agent's disk what no snapshot could take."""
        shutil.rmtree(self._workspace(), ignore_errors=True)
        self._workspace().mkdir(exist_ok=True)

    async def _post(self, text: str) -> Turn:
        conversation = (await self._chat.create_conversation(self._user)).id
        turn = await self._chat.post(self._user, conversation, text, key=text[:60])
        self.accepted.append(turn)
        return turn

    async def _attack_by_answer(self, number: int) -> None:
        gateway = self._world.gateways.get(self._user)
        if gateway is not None:
            gateway.script(*SCRIPTS[self._dice.choice(list(SCRIPTS))])
        await self._post(f"attack {number}")

    async def _write_and_stop(self, number: int) -> None:
        turn = await self._post(f"large {number} {LARGE}")
        await self._chat.stop(self._user, turn.id)

    async def _open_conversations(self, _number: int) -> None:
        for _ in range(20):
            await self._chat.create_conversation(self._user)

    async def _wake_and_sleep(self, _number: int) -> None:
        await self._agents.ask_stopped(self._user)
        await self._agents.ask_restart(self._user)

    def _workspace(self) -> Path:
        return folder_of(self._world.disk, self._user).root / "workspace"

    async def _ignore_slowly(self, number: int) -> None:
        patterns = "\n".join("**/" + "a*" * 100 + f"/{line}" for line in range(200))
        (self._workspace() / ".ocmtignore").write_text(patterns)

    async def _link(self, number: int) -> None:
        folder = self._workspace() / f"links-{number}"
        await asyncio.to_thread(_make_links, folder)

    async def _nest(self, number: int) -> None:
        folder = self._workspace().joinpath(f"nest-{number}", *(["a" * 20] * 60))
        folder.mkdir(parents=True)
        (folder / "leaf").touch()

    async def _misname(self, number: int) -> None:
        top = os.fsencode(self._workspace())
        for name in (b"\xff\xfe", b"line\nfeed", b"\x1b[2J", f"long-{number}-".encode() + b"n" * 200):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(top + b"/" + name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._workspace() / "fifo")
        with contextlib.suppress(FileExistsError):
            (self._workspace() / "loop").symlink_to("loop")


def _make_links(folder: Path) -> None:
    folder.mkdir()
    (folder / "0").touch()
    for number in range(1, LINKS):
        os.link(folder / "0", folder / str(number))
