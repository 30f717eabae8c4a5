"""The sockets of users' own programs: each wakes its agent, keeps it awake while it is used, and ends with
the right to it.

A socket that nobody writes on is no reason to stay awake; the first message after that wakes the agent again.
One task looks after all of them, so that an idle one costs its two connections and little else.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from ocmt.agents.holds import TTL
from ocmt.agents.lifecycle import Driver
from ocmt.agents.service import Agents
from ocmt.errors import LeaseLost, LimitReached, NotYet, OcmtError, Unauthenticated, Unavailable
from ocmt.gateway.model import Limits
from ocmt.platform.bucket import Bucket
from ocmt.platform.clock import Clock
from ocmt.platform.http.splice import POLICY, RESTART, Splice
from ocmt.platform.http.upgrade import Upgrade

log = structlog.get_logger(__name__)

MAX_SOCKETS = 10_000
"""Of this process."""
LOOK_INTERVAL = 1.0
IDLE_AFTER = 300.0
"""Seconds after a program's last message in which its socket still keeps the agent awake."""
RENEW_EVERY = TTL.total_seconds() / 3
CHECK_EVERY = 30.0
"""Seconds between two looks whether the user may still do this: twice that is promised."""
DIAL_SECONDS = 10.0

Drive = Callable[[UUID], Awaitable[Driver | None]]
Still = Callable[[], Awaitable[object | None]]
"""Who it is by now, None or Unauthenticated where nobody any more. Raises: Unavailable."""


@dataclass(eq=False)
class _Socket:
    user_id: UUID
    splice: Splice
    still: Still
    checked: float
    active: float
    frames: int = 0
    bytes_in: int = 0


@dataclass(eq=False)
class _User:
    """What one user's programs do together."""

    bytes: Bucket
    messages: Bucket
    opening: int = 0
    sockets: set[_Socket] = field(default_factory=set)
    held_at: float | None = None
    waking: asyncio.Task[None] | None = None
    throttled: bool = False


class Sockets:
    """Of this process."""

    def __init__(
        self, agents: Agents, drive: Drive, clock: Clock, *, owner: str, limits: Limits | None = None
    ) -> None:
        """`owner`: unlike that of any other process, for what it holds awake."""
        self._agents = agents
        self._drive = drive
        self._clock = clock
        self._reference = f"gateway {owner}"
        self._limits = limits or Limits()
        self._users: dict[UUID, _User] = {}

    @property
    def open_now(self) -> int:
        """How many there are."""
        return sum(len(user.sockets) for user in self._users.values())

    async def open(self, user_id: UUID, still: Still, upgrade: Upgrade, head: bytes) -> None:
        """Wake the agent and splice. Returns once bytes flow.

        Raises: LimitReached, Unavailable (also where the agent fails), UpstreamRefused.
        """
        user = self._users.setdefault(user_id, self._new_user())
        try:
            if len(user.sockets) + user.opening >= self._limits.sockets:
                raise LimitReached(
                    f"You have {self._limits.sockets} programs connected to your agent. Close some.",
                    retry_after=30,
                )
            if self.open_now >= MAX_SOCKETS:
                raise Unavailable("Too many programs are connected to this server.", retry_after=30)
            user.opening += 1
            try:
                await self._agents.find(user_id)
                await self._hold(user_id, user)
                upstream = await self.dial(user_id)
                splice = await upgrade.join(
                    upstream,
                    head,
                    most=self._limits.frame_bytes,
                    on_end=lambda ended: self._ended(user_id, ended),
                )
            finally:
                user.opening -= 1
            if not splice.over:
                now = self._clock.monotonic()
                # Spread, or those of a reconnecting crowd would all be checked in the same second.
                checked = now - random.random() * CHECK_EVERY  # noqa: S311
                user.sockets.add(_Socket(user_id, splice, still, checked, now))
        finally:
            self._forget_unused(user_id)

    async def dial(self, user_id: UUID) -> socket.socket:
        """A connection to the user's gateway, awake by then. Raises: Unavailable (or the agent's failure)."""
        deadline = self._clock.monotonic() + DIAL_SECONDS
        while True:
            try:
                driver = await self._driver(user_id)
                with driver.in_use():
                    return await driver.dial()
            except (NotYet, LeaseLost) as error:
                pause = error.retry_after or 0.5
                if self._clock.monotonic() + pause >= deadline:
                    raise
                await self._clock.sleep(pause)

    async def _driver(self, user_id: UUID) -> Driver:
        driver = await self._drive(user_id)
        if driver is None:
            raise NotYet("Another server looks after your agent just now.", retry_after=1)
        return driver

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            await self._clock.sleep(LOOK_INTERVAL)
            now = self._clock.monotonic()
            for user_id, user in list(self._users.items()):
                try:
                    await self._look(user_id, user, now)
                except OcmtError as error:
                    log.warning("could not look after sockets", user_id=str(user_id), error=str(error))

    async def _look(self, user_id: UUID, user: _User, now: float) -> None:
        self._measure(user, now)
        active = any(now - each.active < IDLE_AFTER for each in user.sockets) or user.opening
        if active and (user.held_at is None or now - user.held_at >= RENEW_EVERY):
            await self._hold(user_id, user)
        elif not active and user.held_at is not None:
            user.held_at = None
            await self._agents.release(user_id, "socket", self._reference)
            for each in user.sockets:
                each.splice.watch(lambda: self._returned(user_id, user))
        for each in list(user.sockets):
            if now - each.checked >= CHECK_EVERY:
                each.checked = now
                await self._check(each)
        self._forget_unused(user_id)

    def _measure(self, user: _User, now: float) -> None:
        size = messages = 0
        for each in user.sockets:
            frames, came = each.splice.from_client.data_frames, each.splice.bytes_in
            if frames != each.frames:
                each.active = now
            messages += frames - each.frames
            size += came - each.bytes_in
            each.frames, each.bytes_in = frames, came
        user.bytes.pour(size, now)
        user.messages.pour(messages, now)
        too_much = user.bytes.wait(0, now) > 0 or user.messages.wait(0, now) > 0
        if too_much != user.throttled:
            user.throttled = too_much
            for each in user.sockets:
                each.splice.throttle(too_much)

    async def _check(self, each: _Socket) -> None:
        try:
            known = await each.still()
        except Unauthenticated:
            known = None
        if known is None:
            each.splice.close(POLICY, "Signed out, or the account may no longer do this.")

    async def _hold(self, user_id: UUID, user: _User) -> None:
        await self._agents.hold(user_id, "socket", self._reference, ttl=TTL)
        user.held_at = self._clock.monotonic()

    def _returned(self, user_id: UUID, user: _User) -> None:
        """Somebody writes again on a socket that was idle: the agent may be asleep."""
        now = self._clock.monotonic()
        for each in user.sockets:
            each.active = now
        if user.waking is None or user.waking.done():
            user.waking = asyncio.create_task(self._wake(user_id, user), name=f"socket wakes {user_id}")

    async def _wake(self, user_id: UUID, user: _User) -> None:
        try:
            await self._hold(user_id, user)
            await (await self._driver(user_id)).awake()
        except OcmtError as error:
            log.info("agent not woken by a socket", user_id=str(user_id), reason=str(error))
            for each in list(user.sockets):
                each.splice.close(RESTART, "Your agent could not be woken: connect again.")

    def _ended(self, user_id: UUID, splice: Splice) -> None:
        user = self._users.get(user_id)
        if user is not None:
            user.sockets = {each for each in user.sockets if each.splice is not splice}

    def _forget_unused(self, user_id: UUID) -> None:
        user = self._users.get(user_id)
        if user is not None and not user.sockets and not user.opening and user.held_at is None:
            del self._users[user_id]

    def _new_user(self) -> _User:
        limits = self._limits
        return _User(
            Bucket(limits.bytes_per_second, limits.burst_bytes),
            Bucket(limits.messages_per_second, limits.burst_messages),
        )
