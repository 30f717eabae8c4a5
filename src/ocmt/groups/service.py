"""What members and admins of a group may do. Whoever is not in a group finds nothing of it.

Changes of one group take turns by a lock on its row, so that "is there another admin?" is still true at the
commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.errors import Conflict, LimitReached, NotFound, Refused
from ocmt.groups import model
from ocmt.groups.model import Group, Invitation, Member, MemberRole, Resource, Share
from ocmt.identity import letters
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.identity.letters import Letter
from ocmt.identity.model import normalise_email, one_line
from ocmt.identity.post import Post
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries
from ocmt.platform.tags import require_seen, tag_of

_queries = load_queries("ocmt.groups")
Admits = Callable[[Connection, str], Awaitable[bool]]
"""Whether somebody who proves this address would be let in."""


class Groups:
    """The groups of this installation."""

    def __init__(
        self, database: Database, audit: Audit, clock: Clock, *, url: str, post: Post, admits: Admits
    ) -> None:
        """`post`: counts whom somebody invites. `admits`: to whom a mail is worth sending."""
        self._database = database
        self._post = post
        self._admits = admits
        self._audit = audit
        self._clock = clock
        self._url = url

    async def list(self, user_id: UUID) -> Sequence[Group]:
        """Those that a user is in, by name."""
        async with self._database.connection() as connection:
            rows = _queries.list_groups(connection, user_id=user_id, group_id=None)
            return [Group(**row) async for row in rows]

    async def find(self, user_id: UUID, group_id: UUID) -> Group:
        """Raises: NotFound, also where the user is not in it."""
        async with self._database.connection() as connection:
            rows = _queries.list_groups(connection, user_id=user_id, group_id=group_id)
            async for row in rows:
                return Group(**row)
        raise _unknown()

    async def make(self, actor: Actor, name: str, description: str | None) -> Group:
        """A new group, whose maker is its admin. Raises: InvalidInput, LimitReached."""
        group_id, name = uuid7(), one_line(name, "the group")
        async with self._database.transaction() as connection:
            await self._admit_one_more(connection, actor.on_behalf_of)
            await _queries.add_group(
                connection,
                group_id=group_id,
                name=name,
                description=model.checked_description(description),
                user_id=actor.on_behalf_of,
                now=self._clock.now(),
            )
            await _queries.add_member(
                connection, group_id=group_id, user_id=actor.on_behalf_of, role="admin", now=self._clock.now()
            )
            await self._record(connection, "group.made", actor, group_id, after={"name": name})
        return await self.find(actor.on_behalf_of, group_id)

    async def change(
        self, actor: Actor, group_id: UUID, name: str, description: str | None, *, seen: str | None = None
    ) -> Group:
        """By an admin of it, who has `seen` a certain state (`Group.tag`).

        Raises: NotFound, Refused, InvalidInput, PreconditionFailed.
        """
        async with self._database.transaction() as connection:
            before = await self.require_admin(connection, actor, group_id)
            require_seen(seen, tag_of(before["name"], before["description"]))
            name = one_line(name, "the group")
            await _queries.update_group(
                connection, group_id=group_id, name=name, description=model.checked_description(description)
            )
            await self._record(connection, "group.changed", actor, group_id, after={"name": name})
        return await self.find(actor.on_behalf_of, group_id)

    async def delete(self, actor: Actor, group_id: UUID) -> None:
        """By an admin of it: members, invitations and the shared key go with it. Raises: NotFound,
        Refused."""
        async with self._database.transaction() as connection:
            await self.require_admin(connection, actor, group_id)
            await _queries.drop_group(connection, group_id=group_id)
            await self._record(connection, "group.deleted", actor, group_id)

    # Members

    async def members(
        self, user_id: UUID, group_id: UUID, *, after: UUID | None = None, limit: int = 100
    ) -> Sequence[Member]:
        """A page of them, behind the member `after`. Raises: NotFound."""
        await self.find(user_id, group_id)
        async with self._database.connection() as connection:
            rows = _queries.list_members(connection, group_id=group_id, after=after, limit=limit)
            return [Member(**row) async for row in rows]

    async def set_role(self, actor: Actor, group_id: UUID, member_id: UUID, role: MemberRole) -> None:
        """By an admin. Raises: NotFound, Refused, Conflict for the last admin."""
        async with self._database.transaction() as connection:
            await self.require_admin(connection, actor, group_id)
            before = await self._role_of(connection, group_id, member_id)
            if before == "admin" and role != "admin":
                await self._refuse_the_last(connection, group_id)
            await _queries.set_member_role(connection, group_id=group_id, member_id=member_id, role=role)
            await self._record(
                connection,
                "group.member_role",
                actor,
                group_id,
                subject=member_id,
                before={"role": before},
                after={"role": role},
            )

    async def remove(self, actor: Actor, group_id: UUID, member_id: UUID) -> None:
        """By an admin, or by oneself: leaving. What the group shares is gone at once.

        Raises: NotFound, Refused, Conflict for the last admin.
        """
        async with self._database.transaction() as connection:
            own = await self._require_member(connection, actor, group_id)
            if member_id != actor.on_behalf_of and own["role"] != "admin":
                raise _not_an_admin()
            if await self._role_of(connection, group_id, member_id) == "admin":
                await self._refuse_the_last(connection, group_id)
            await _queries.drop_member(connection, group_id=group_id, member_id=member_id)
            left = "group.left" if member_id == actor.on_behalf_of else "group.member_removed"
            await self._record(connection, left, actor, group_id, subject=member_id)

    async def give_up(self, user_id: UUID) -> None:
        """An account is deleted: groups of theirs alone go, others get another admin if they need one."""
        async with self._database.transaction() as connection:
            await _queries.promote_heirs(connection, user_id=user_id)
            await _queries.drop_lonely(connection, user_id=user_id)

    # Invitations

    async def invitations(self, actor: Actor, group_id: UUID) -> Sequence[Invitation]:
        """The open ones, to an admin. Raises: NotFound, Refused."""
        if (await self.find(actor.on_behalf_of, group_id)).role != "admin":
            raise _not_an_admin()
        async with self._database.connection() as connection:
            rows = _queries.list_invitations(connection, group_id=group_id, now=self._clock.now())
            return [Invitation(**row) async for row in rows]

    async def invite(
        self, actor: Actor, group_id: UUID, email: str, role: MemberRole
    ) -> tuple[UUID, Letter | None]:
        """Ask somebody to join; the letter is the caller's to deliver. An open invitation before is replaced.

        There is no letter to an address that the sign-up policy would not let in. Nobody is told: that would
        say which addresses have an account.

        Raises: NotFound, Refused, InvalidInput, Conflict for a member, LimitReached.
        """
        address, now, number = normalise_email(email), self._clock.now(), uuid7()
        await self._post.admit("group_invitation", actor.on_behalf_of)
        async with self._database.transaction() as connection:
            await self.require_admin(connection, actor, group_id)
            if await _queries.is_member(connection, group_id=group_id, email=address):
                raise Conflict(f"{address} is in this group already.")
            await _queries.drop_open_invitation(connection, group_id=group_id, email=address)
            open_ones = await _queries.count_invitations(connection, group_id=group_id, now=now)
            if open_ones >= model.MOST_INVITATIONS:
                raise LimitReached("This group has many open invitations: withdraw some first.")
            await _queries.add_invitation(
                connection,
                id=number,
                group_id=group_id,
                email=address,
                role=role,
                invited_by=actor.on_behalf_of,
                now=now,
                expires_at=now + model.INVITED_FOR,
            )
            await self._record(
                connection, "group.invited", actor, group_id, after={"email": address, "role": role}
            )
            admitted = await self._admits(connection, address)
            by = await _queries.find_address(connection, user_id=actor.on_behalf_of)
        letter = letters.group_invitation(
            address, by or "", self._url, group_id=str(group_id), days=model.INVITED_FOR.days
        )
        return number, letter if admitted else None

    async def withdraw(self, actor: Actor, group_id: UUID, invitation_id: UUID) -> None:
        """By an admin. Raises: NotFound, Refused."""
        async with self._database.transaction() as connection:
            await self.require_admin(connection, actor, group_id)
            gone = await _queries.withdraw_invitation(
                connection, id=invitation_id, group_id=group_id, now=self._clock.now()
            )
            if gone is None:
                raise NotFound("There is no such open invitation.")
            await self._record(
                connection, "group.invitation_withdrawn", actor, group_id, before={"email": gone["email"]}
            )

    async def own_invitations(self, email: str) -> Sequence[Invitation]:
        """Those that wait for the user of this address."""
        async with self._database.connection() as connection:
            rows = _queries.own_invitations(connection, email=email, now=self._clock.now())
            return [Invitation(**row) async for row in rows]

    async def decide(self, actor: Actor, invitation_id: UUID, *, accept: bool) -> UUID:
        """Join, or say no; returns the group. Raises: NotFound for what was not sent to the address of the
        user for whom `actor` acts, LimitReached."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            decided = await _queries.decide_invitation(
                connection,
                id=invitation_id,
                user_id=actor.on_behalf_of,
                now=now,
                decision="accepted" if accept else "declined",
            )
            if decided is None:
                raise NotFound("There is no such invitation for you (any more).")
            group_id: UUID = decided["group_id"]
            if accept:
                await self._admit_one_more(connection, actor.on_behalf_of)
                if await _queries.count_members(connection, group_id=group_id) >= model.MOST_MEMBERS:
                    raise LimitReached(f"This group is full: it has {model.MOST_MEMBERS} members.")
                await _queries.add_member(
                    connection, group_id=group_id, user_id=actor.on_behalf_of, role=decided["role"], now=now
                )
            action = "group.joined" if accept else "group.invitation_declined"
            await self._record(connection, action, actor, group_id, subject=actor.on_behalf_of)
        return group_id

    # Of the old production

    async def resources(self, user_id: UUID, group_id: UUID) -> Sequence[Resource]:
        """Raises: NotFound."""
        await self.find(user_id, group_id)
        async with self._database.connection() as connection:
            return [Resource(**row) async for row in _queries.list_resources(connection, group_id=group_id)]

    async def shares(self, user_id: UUID) -> Sequence[Share]:
        """What was granted to a user."""
        async with self._database.connection() as connection:
            return [Share(**row) async for row in _queries.list_shares(connection, user_id=user_id)]

    # Who may

    async def require_admin(self, connection: Connection, actor: Actor, group_id: UUID) -> Mapping[str, Any]:
        """Also for what hangs on a group and is kept elsewhere: its shared key. Returns the group's row, now
        locked. Raises: NotFound, Refused."""
        locked = await self._require_member(connection, actor, group_id)
        if locked["role"] != "admin":
            raise _not_an_admin()
        return locked

    async def _require_member(
        self, connection: Connection, actor: Actor, group_id: UUID
    ) -> Mapping[str, Any]:
        locked: Mapping[str, Any] | None = await _queries.lock_group(
            connection, group_id=group_id, user_id=actor.on_behalf_of
        )
        if locked is None:
            raise _unknown()
        return locked

    async def _role_of(self, connection: Connection, group_id: UUID, member_id: UUID) -> MemberRole:
        found = await _queries.find_member(connection, group_id=group_id, member_id=member_id)
        if found is None:
            raise NotFound("There is no such member.")
        role: MemberRole = found["role"]
        return role

    async def _refuse_the_last(self, connection: Connection, group_id: UUID) -> None:
        if await _queries.count_admins(connection, group_id=group_id) == 1:
            raise Conflict("This is the group's last admin: make another one first, or delete the group.")

    async def _admit_one_more(self, connection: Connection, user_id: UUID) -> None:
        if await _queries.count_groups(connection, user_id=user_id) >= model.MOST_GROUPS:
            raise LimitReached(f"You are in {model.MOST_GROUPS} groups: leave one first.")

    async def _record(
        self,
        connection: Connection,
        action: str,
        actor: Actor,
        group_id: UUID,
        *,
        subject: UUID | None = None,
        **details: Any,
    ) -> None:
        await self._audit.record(
            connection,
            action,
            actor=actor,
            subject_id=subject,
            group=str(group_id),
            **details,
        )


def _unknown() -> NotFound:
    return NotFound("There is no such group.")


def _not_an_admin() -> Refused:
    return Refused("Only the group's admins may do this.")
