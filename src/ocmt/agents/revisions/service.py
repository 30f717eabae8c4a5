"""The revisions as rows that an operator edits while everything runs, and what each agent made of them.

What an agent is offered counts at its next start; nothing here stops one that runs. Writes about an agent's
upgrade take its lease and are guarded by its token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ocmt.agents.revisions.model import EVERYBODY, Revision, Standing, Trial, check
from ocmt.agents.service import Agents, ours
from ocmt.errors import Conflict, NotFound
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.leases import Lease
from ocmt.platform.queries import every, load_queries

queries = load_queries(__package__)

MAX_REASON = 500


@dataclass(frozen=True)
class Count:
    """How a revision fares."""

    agents: int = 0
    """That run it."""
    pinned: int = 0
    tried: int = 0
    """Agents that have come to a verdict about it."""
    failed: int = 0
    """Of those: that did not come up on it, and went back."""
    reason: str | None = None
    """Of the latest failure."""


class Revisions:
    """All revisions, and who runs which."""

    def __init__(self, database: Database, agents: Agents, clock: Clock) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock

    # What operators do

    async def all(self) -> list[Revision]:
        """By number."""
        async with self._database.connection() as connection:
            return await _all(connection)

    async def counts(self) -> Mapping[int, Count]:
        """Number → how it fares."""
        async with self._database.connection() as connection:
            rows = await every(queries.count_revisions(connection))
        return {row["number"]: Count(**{k: v for k, v in row.items() if k != "number"}) for row in rows}

    async def know(self, image: str) -> None:
        """What this installation brings along becomes a revision for everybody, unless that image is one."""
        async with self._database.transaction() as connection:
            await queries.lock_revisions(connection)
            known = await _all(connection)
            if all(revision.image != image for revision in known):
                await self._insert(connection, known, image, EVERYBODY, {})

    async def add(self, image: str, *, share: int = 0, config: Mapping[str, Any] | None = None) -> Revision:
        """The newest from now on. Raises: InvalidInput; Conflict where no agents have ever been run here."""
        check(image, share)
        async with self._database.transaction() as connection:
            await queries.lock_revisions(connection)
            known = await _all(connection)
            if not known:
                raise Conflict(
                    "It is not known yet what agents run here, to go back to: start `ocmt up` once before."
                )
            return await self._insert(connection, known, image, share, dict(config or {}))

    async def roll_out(self, number: int, share: int) -> None:
        """Offer it to that share of the users, percent. A smaller one than before takes it from nobody.

        Raises: InvalidInput, NotFound, Conflict where it is withdrawn or some users would have none.
        """
        async with self._database.transaction() as connection:
            revision = await _locked(connection, number)
            check(revision.image, share)
            if revision.withdrawn:
                raise Conflict(f"Revision {number} is withdrawn. Add its image again as a new one.")
            await queries.set_share(connection, number=number, share=share)
            await _for_everybody(connection)

    async def withdraw(self, number: int) -> None:
        """Nobody shall run it any more; whoever does moves to another at the next start.

        Raises: NotFound, Conflict where some users would have none.
        """
        async with self._database.transaction() as connection:
            await _locked(connection, number)
            await queries.withdraw_revision(connection, number=number)
            await _for_everybody(connection)

    async def retry(self, number: int) -> int:
        """Offer it again to the agents that did not come up on it; returns how many. Raises: NotFound."""
        async with self._database.transaction() as connection:
            await _locked(connection, number)
            return len(await every(queries.drop_refusals(connection, number=number, user_id=None)))

    async def pin(self, user_id: UUID, number: int) -> None:
        """This user's agent shall run that one, also if it once did not come up on it.

        Raises: NotFound, Conflict where it is withdrawn.
        """
        await self._agents.find(user_id)
        async with self._database.transaction() as connection:
            if (await _locked(connection, number)).withdrawn:
                raise Conflict(f"Revision {number} is withdrawn.")
            await queries.set_pin(connection, user_id=user_id, number=number)
            await every(queries.drop_refusals(connection, number=number, user_id=user_id))

    async def unpin(self, user_id: UUID) -> None:
        """It goes with the others again. One without a pin is fine."""
        async with self._database.connection() as connection:
            await queries.set_pin(connection, user_id=user_id, number=None)

    async def _insert(
        self,
        connection: Connection,
        known: Sequence[Revision],
        image: str,
        share: int,
        config: dict[str, Any],
    ) -> Revision:
        number = max((revision.number for revision in known), default=0) + 1
        revision = Revision(number, image, share, self._clock.now(), config=config)
        await queries.add_revision(
            connection,
            number=number,
            image=image,
            share=share,
            config=config,
            created_at=revision.created_at,
        )
        return revision

    # What the lease's holder asks and writes; each raises LeaseLost

    async def standing(self, lease: Lease) -> Standing:
        """Of the lease's agent."""
        async with self._database.connection() as connection:
            row = await queries.find_standing(connection, user_id=lease.key, lease_token=lease.token)
        row = ours(row, lease.key)
        trial = None
        if row["trial"] is not None:
            trial = Trial(row["trial"], row["generation"], row["attempt"], row["outcome"] == "refused")
        return Standing(row["revision"], row["revision_pin"], frozenset(row["refused"]), trial)

    async def open(self, lease: Lease, number: int, generation: int | None) -> None:
        """It is about to start on that one; from now on its files count as touched by it, until they are put
        back to that generation, or it has passed."""
        async with self._database.transaction() as connection:
            written = await queries.open_trial(
                connection,
                user_id=lease.key,
                lease_token=lease.token,
                revision=number,
                generation=generation,
                now=self._clock.now(),
            )
        ours(written, lease.key)

    async def refuse(self, lease: Lease, reason: str) -> None:
        """It did not come up on it, and shall not be tried again."""
        async with self._database.transaction() as connection:
            written = await queries.refuse_trial(
                connection,
                user_id=lease.key,
                lease_token=lease.token,
                reason=reason[:MAX_REASON],
                now=self._clock.now(),
            )
        ours(written, lease.key)

    async def close(self, lease: Lease) -> None:
        """Its files are what they were before."""
        async with self._database.transaction() as connection:
            written = await queries.close_trial(connection, user_id=lease.key, lease_token=lease.token)
        ours(written, lease.key)

    async def passed(self, lease: Lease, revision: Revision) -> None:
        """It runs that one now, and there is no way back to before."""
        async with self._database.transaction() as connection:
            written = await queries.passed_by_agent(
                connection,
                user_id=lease.key,
                lease_token=lease.token,
                revision=revision.number,
                image=revision.image,
            )
            ours(written, lease.key)
            await queries.pass_trial(
                connection, user_id=lease.key, revision=revision.number, now=self._clock.now()
            )


async def _all(connection: Connection) -> list[Revision]:
    return [Revision(**row) for row in await every(queries.list_revisions(connection))]


async def _locked(connection: Connection, number: int) -> Revision:
    """That one; no other is added or judged until the transaction ends. Raises: NotFound."""
    await queries.lock_revisions(connection)
    for revision in await _all(connection):
        if revision.number == number:
            return revision
    raise NotFound(f"There is no revision {number}. `ocmt revisions list` shows them.")


async def _for_everybody(connection: Connection) -> None:
    """Raises Conflict where there is none left for everybody: undoes the transaction."""
    known = await _all(connection)
    if not any(revision.share == EVERYBODY and not revision.withdrawn for revision in known):
        raise Conflict("Some users' agents would have nothing to run: roll another one out to 100 % first.")
