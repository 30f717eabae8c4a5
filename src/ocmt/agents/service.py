"""What can be asked of agents, and how their rows are written.

Requests (wake, sleep, restart) only write what is desired and hint; the holder of the agent's lease makes it
so (`reconciler`, `lifecycle`). Writes about what *is* take that holder's lease and are guarded by its token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from ocmt.agents.model import Agent, Event, Hold, Plan, Policy, Saved, State, after
from ocmt.agents.schedule import Projection
from ocmt.errors import Conflict, LeaseLost, LimitReached, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database, notify
from ocmt.platform.leases import Lease
from ocmt.platform.queries import every, load_queries

queries = load_queries(__package__)

CHANNEL = "agents"
"""LISTEN channel of hints; the payload is the user id."""


MAX_HOLDS = 100
"""Of one agent at a time."""

NOT_OURS = "Another replica drives this agent now."


_Row = TypeVar("_Row")
Note = Callable[[Connection, Mapping[str, Any]], Awaitable[None]]
"""Writes down, in the transaction of a change, that it was made; with what there is to say of it."""


def ours(row: _Row | None, user_id: UUID, *, what: str = "agent") -> _Row:
    """What a statement gave that is guarded by a lease's token. Raises LeaseLost where it gave nothing."""
    if row is None:
        raise LeaseLost(NOT_OURS, detail=f"{what} {user_id}")
    return row


def token_hash(token: str) -> bytes:
    """How tokens are stored: they are random, so a plain SHA-256 is enough."""
    return hashlib.sha256(token.encode()).digest()


async def shut_out(connection: Connection, user_id: UUID) -> None:
    """Stop the agent of a user who is shut out, in the transaction that says so.

    The holder of its lease ends it at the hint of the commit, whatever it is doing: see `Agent.shut_out`.
    """
    await queries.shut_out(connection, user_id=user_id, nobody=secrets.token_bytes(32))
    await notify(connection, CHANNEL, str(user_id))


@dataclass(frozen=True)
class Change:
    """What an event does to an agent's row beside the new state."""

    event: Event
    error: Mapping[str, str] | None = None
    failures: int | None = None
    retry_at: datetime | None = None
    runtime_state: dict[str, Any] | None = None
    image: str | None = None
    desired: State | None = None


class Agents:
    """The agents' rows."""

    def __init__(self, database: Database, clock: Clock, *, runtime: str) -> None:
        self._database = database
        self._clock = clock
        self._runtime = runtime

    # What users and other rooms ask

    async def find(self, user_id: UUID) -> Agent:
        """The user's agent, made at the first look (stopped; nothing runs)."""
        async with self._database.connection() as connection:
            found = await self._read(connection, [user_id])
            if not found:
                # A hash that no token has: the first real one is minted when the agent starts.
                nobody = secrets.token_bytes(32)
                await queries.create_agent(
                    connection,
                    user_id=user_id,
                    runtime=self._runtime,
                    broker_token_hash=nobody,
                    now=self._clock.now(),
                )
                found = await self._read(connection, [user_id])
        return found[0]

    async def find_all(self, user_ids: Sequence[UUID]) -> list[Agent]:
        """Those agents, as far as there are any, by two statements for all of them."""
        if not user_ids:
            return []
        async with self._database.connection() as connection:
            return await self._read(connection, user_ids)

    async def ask_awake(self, user_id: UUID) -> None:
        """Somebody needs this agent: it shall wake, and its idle time starts anew."""
        await self.find(user_id)
        async with self._database.transaction() as connection:
            await queries.ask_awake(connection, user_id=user_id, now=self._clock.now())
            await notify(connection, CHANNEL, str(user_id))

    async def ask_stopped(self, user_id: UUID) -> None:
        """It shall go to sleep now. Raises Conflict while it works on a turn."""
        await self.find(user_id)
        async with self._database.transaction() as connection:
            if await queries.ask_stopped(connection, user_id=user_id) is None:
                raise Conflict("Your agent is working on an answer. Stop that first, then let it sleep.")
            await notify(connection, CHANNEL, str(user_id))

    async def ask_restart(self, user_id: UUID) -> None:
        """It shall be stopped and started again."""
        await self.find(user_id)
        async with self._database.transaction() as connection:
            await queries.ask_restart(connection, user_id=user_id, now=self._clock.now())
            await notify(connection, CHANNEL, str(user_id))

    async def hold(
        self, user_id: UUID, reason: str, reference: str, *, ttl: timedelta, note: str | None = None
    ) -> None:
        """Keep it awake for a named reason until `release`, or `ttl` from now if nobody releases it.

        It does not wake it. Raises LimitReached where the agent has MAX_HOLDS of them already.
        """
        now = self._clock.now()
        async with self._database.connection() as connection:
            held = await queries.add_hold(
                connection,
                user_id=user_id,
                reason=reason,
                reference=reference,
                expires_at=now + ttl,
                note=note,
                now=now,
                most=MAX_HOLDS,
            )
        if held is None:
            raise LimitReached("Too many things keep this agent awake already.")

    async def release(self, user_id: UUID, reason: str, reference: str) -> bool:
        """Drop a hold; one that is gone already is fine. Whether there was one."""
        async with self._database.connection() as connection:
            dropped = await queries.drop_hold(connection, user_id=user_id, reason=reason, reference=reference)
        return dropped is not None

    async def schedule_of(self, user_id: UUID) -> dict[str, Any] | None:
        """What it has planned, as last kept; None where nobody has asked it yet."""
        async with self._database.connection() as connection:
            kept: dict[str, Any] | None = await queries.find_schedule(connection, user_id=user_id)
        return kept

    async def touch(self, user_id: UUID) -> None:
        """It was used just now: its idle time starts anew."""
        async with self._database.connection() as connection:
            await queries.touch(connection, user_id=user_id, now=self._clock.now())

    async def owner_of_token(self, token: str) -> UUID | None:
        """Return the user whose running agent holds this broker token; None for every other token.

        Raises: Unavailable while the lease on the agent has expired and nobody has taken it over: its holder
        may only be late.
        """
        async with self._database.connection() as connection:
            found = await queries.find_broker_token_owner(connection, token_hash=token_hash(token))
        if found is None:
            return None
        if not found["leased"]:
            raise Unavailable("The lease on this agent has expired.", retry_after=1)
        owner: UUID = found["user_id"]
        return owner

    async def every_agent(self, *, after: UUID | None = None, limit: int = 500) -> list[dict[str, Any]]:
        """For operators: a page of all agents with their users' addresses, in the order of their ids."""
        async with self._database.connection() as connection:
            rows = await every(queries.list_agents(connection, after=after, limit=limit))
        return [dict(row) for row in rows]

    # What the lease holder writes

    async def apply(self, agent: Agent, lease: Lease, change: Change) -> Agent:
        """Write what has happened. Raises LeaseLost if another replica drives this agent now."""
        if agent.lease_token != lease.token:
            raise LeaseLost(NOT_OURS, detail=f"agent {agent.user_id}")
        state = after(agent.state, change.event)
        now = self._clock.now()
        changed = replace(
            agent,
            state=state,
            since=now,
            progress=None,
            error=change.error,
            failures=agent.failures if change.failures is None else change.failures,
            retry_at=change.retry_at,
            runtime_state=agent.runtime_state if change.runtime_state is None else change.runtime_state,
            image=change.image or agent.image,
            desired=change.desired or agent.desired,
            schedule_unread=agent.schedule_unread or state is State.AWAKE,
        )
        async with self._database.transaction() as connection:
            written = await queries.apply_state(
                connection,
                user_id=agent.user_id,
                lease_token=lease.token,
                state=changed.state.value,
                now=now,
                error=changed.error,
                failures=changed.failures,
                retry_at=changed.retry_at,
                runtime_state=changed.runtime_state,
                image=change.image,
                desired=change.desired.value if change.desired else None,
            )
            await self._applied(connection, written, agent.user_id)
        return changed

    async def apply_progress(self, lease: Lease, step: str, text: str) -> None:
        """Show how far the wake has come."""
        async with self._database.transaction() as connection:
            written = await queries.apply_progress(
                connection, user_id=lease.key, lease_token=lease.token, progress={"step": step, "text": text}
            )
            await self._applied(connection, written, lease.key)

    async def apply_pause(
        self, agent: Agent, lease: Lease, plan: Projection | None, *, idle_for: timedelta
    ) -> bool:
        """Commit a pause if the agent is still idle; False if something came up meanwhile.

        `plan` None: nothing new is known of its schedule.
        """
        now = self._clock.now()
        async with self._database.transaction() as connection:
            written = await queries.apply_pause(
                connection,
                user_id=agent.user_id,
                lease_token=lease.token,
                now=now,
                idle_since=now - idle_for,
                **_planned(plan),
            )
            if written is not None:
                await notify(connection, CHANNEL, str(agent.user_id))
        return written is not None

    async def apply_stopping(
        self,
        agent: Agent,
        lease: Lease,
        plan: Projection | None,
        *,
        idle_for: timedelta | None,
        forced: bool = False,
    ) -> bool:
        """Commit that it is being stopped, if nothing is under way; `idle_for` None: it was asked for,
        and still is.

        `forced`: only a turn keeps it awake.

        `plan` None: nothing new is known of its schedule.
        """
        now = self._clock.now()
        async with self._database.transaction() as connection:
            written = await queries.apply_stopping(
                connection,
                user_id=agent.user_id,
                lease_token=lease.token,
                now=now,
                idle_since=now - idle_for if idle_for is not None else None,
                forced=forced,
                **_planned(plan),
            )
            if written is not None:
                await notify(connection, CHANNEL, str(agent.user_id))
        return written is not None

    async def apply_schedule(self, lease: Lease, plan: Projection) -> None:
        """Keep what it has planned."""
        async with self._database.connection() as connection:
            written = await queries.apply_schedule(
                connection,
                user_id=lease.key,
                lease_token=lease.token,
                schedule=plan.schedule,
                next_wake_at=plan.next_wake_at,
            )
            await self._applied(connection, written, lease.key, hint=False)

    async def mint_broker_token(self, lease: Lease) -> str:
        """A new token for the agent that is about to start; the one before is void from now on."""
        token = f"ocmt_agent_{secrets.token_urlsafe(32)}"
        async with self._database.transaction() as connection:
            written = await queries.set_broker_token(
                connection, user_id=lease.key, lease_token=lease.token, token_hash=token_hash(token)
            )
            await self._applied(connection, written, lease.key, hint=False)
        return token

    # What the reconciler looks for

    async def idlest(self, user_ids: Sequence[UUID]) -> list[UUID]:
        """Those of them that nothing keeps awake, the one that has been idle for the longest time first."""
        async with self._database.connection() as connection:
            rows = await every(queries.find_idlest_agents(connection, user_ids=list(user_ids)))
        return [row["user_id"] for row in rows]

    async def due(
        self,
        user_ids: Sequence[UUID] | None = None,
        *,
        wake_ahead: timedelta = Policy.wake_ahead,
        limit: int = 100,
    ) -> list[UUID]:
        """Agents that somebody must take care of and nobody does: among those, or (None) among all."""
        now = self._clock.now()
        async with self._database.connection() as connection:
            rows = await every(
                queries.find_due_agents(
                    connection, user_ids=user_ids, now=now, wake_before=now + wake_ahead, limit=limit
                )
            )
        return [row["user_id"] for row in rows]

    async def tidy(self) -> None:
        """Forget holds that have expired."""
        async with self._database.connection() as connection:
            await queries.drop_expired_holds(connection, now=self._clock.now())

    async def expire_leases(self) -> None:
        """At the start of the only process that can be alive: no lease of an earlier one counts."""
        async with self._database.connection() as connection:
            await queries.expire_leases(connection)

    async def _read(self, connection: Connection, user_ids: Sequence[UUID]) -> list[Agent]:
        rows = await every(queries.find_agents(connection, user_ids=user_ids))
        holds: dict[UUID, list[Hold]] = {row["user_id"]: [] for row in rows}
        if rows:
            now = self._clock.now()
            for held in await every(queries.find_holds(connection, user_ids=list(holds), now=now)):
                hold = Hold(held["reason"], held["reference"], held["until"], held["note"])
                holds[held["user_id"]].append(hold)
        return [_agent(row, holds[row["user_id"]]) for row in rows]

    async def _applied(
        self, connection: Connection, written: UUID | None, user_id: UUID, *, hint: bool = True
    ) -> None:
        ours(written, user_id)
        if hint:
            await notify(connection, CHANNEL, str(user_id))


def _planned(plan: Projection | None) -> dict[str, Any]:
    return {
        "planned": plan is not None,
        "schedule": plan.schedule if plan else None,
        "next_wake_at": plan.next_wake_at if plan else None,
    }


def _agent(row: Any, holds: Sequence[Hold]) -> Agent:
    return Agent(
        user_id=row["user_id"],
        slot=row["slot"],
        runtime=row["runtime"],
        desired=State(row["desired"]),
        state=State(row["state"]),
        since=row["since"],
        progress=row["progress"],
        runtime_state=row["runtime_state"],
        egress=row["egress"],
        last_active_at=row["last_active_at"],
        failures=row["failures"],
        retry_at=row["retry_at"],
        error=row["error"],
        next_wake_at=row["next_wake_at"],
        restart_asked=row["restart_asked"],
        image=row["image"],
        lease_token=row["lease_token"],
        schedule_unread=row["schedule_unread"],
        revision=row["revision"],
        plan=Plan(
            row["plan"],
            memory_bytes=row["memory_bytes"],
            cpus=row["cpus"],
            pids=row["pids"],
            disk_bytes=row["disk_bytes"],
            pause_after=row["pause_after"],
            stop_after=row["stop_after"],
            max_awake=row["max_awake"],
            snapshot_files=row["snapshot_files"],
            snapshot_bytes=row["snapshot_bytes"],
            snapshot_file_bytes=row["snapshot_file_bytes"],
            egress=row["egress_policy"],
            kept_snapshot_bytes=row["kept_snapshot_bytes"],
            conversations=row["conversations"],
            conversation_bytes=row["conversation_bytes"],
            delivery_bytes=row["delivery_bytes"],
            attachment_bytes=row["attachment_bytes"],
        ),
        saved=Saved(row["saved_at"], row["snapshot_generation"], row["save_problem"]),
        shut_out=row["shut_out"],
        holds=tuple(holds),
    )
