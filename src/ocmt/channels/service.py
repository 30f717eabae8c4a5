"""What users can do with channels: connect them, and say who may write there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import structlog

from ocmt.channels.base import Channel, Connected, Endpoint
from ocmt.channels.endpoints import announce, open_endpoint, queries
from ocmt.channels.history import NO_ENDPOINT
from ocmt.channels.model import (
    MAX_ENDPOINTS,
    MAX_ID,
    WAITING_KEPT,
    Connection,
    Seal,
    Sender,
    bound_to,
    clean,
    clean_json,
    code_hash,
)
from ocmt.errors import InvalidInput, LimitReached, NotFound, OcmtError
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.queries import every

LEAVING_SECONDS = 30.0
"""In which vendors may remove the webhooks of somebody who goes."""
MAX_FIELD = 4096
"""Characters of what is filled in, in one field."""
_NO_SENDER = "There is no such sender."

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Opened:
    """An endpoint that was connected just now."""

    connection: Connection
    webhook_url: str
    secret: str | None = field(repr=False)
    """What the user has to enter at the vendor; shown this once."""


class Channels:
    """Endpoints and senders of all users; every call takes the user's id and sees only theirs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        channels: Mapping[str, Channel],
        seal: Seal,
        *,
        url: str,
    ) -> None:
        """`url`: our public address, where the vendors find us."""
        self._database = database
        self._clock = clock
        self.kinds = channels
        self._seal = seal
        self._url = url.rstrip("/")

    def webhook_url(self, connection: Connection) -> str:
        """The address that its vendor calls."""
        return self._address(connection.channel, connection.id)

    async def endpoints(self, user_id: UUID) -> list[Connection]:
        """The oldest first."""
        async with self._database.connection() as connection:
            rows = await every(queries.list_endpoints(connection, user_id=user_id))
        return [_connection(row) for row in rows]

    async def find(self, user_id: UUID, endpoint_id: UUID) -> Connection:
        """Raises: NotFound, for an unknown one and for somebody else's alike."""
        return _connection(await self._row(user_id, endpoint_id))

    async def connect(
        self, user_id: UUID, channel: str, fields: Mapping[str, str], name: str | None = None
    ) -> Opened:
        """Connect one, and register its webhook where the vendor's API can. Else nothing remains; only where
        this very process dies meanwhile it is in the list, to be reconnected or disconnected.

        Raises: InvalidInput (what is wrong with the fields), LimitReached, Unavailable.
        """
        kind = self._kind(channel)
        given = _checked(kind, fields)
        name = _name(name) if name else None
        if len(await self.endpoints(user_id)) >= MAX_ENDPOINTS:
            raise _too_many()
        endpoint_id = uuid4()  # random: it is in the address, which strangers must not guess
        connected = await kind.connect(given)
        sealed = await self._sealed(user_id, endpoint_id, connected)
        async with self._database.transaction() as connection:
            row = await queries.create_endpoint(
                connection,
                id=endpoint_id,
                user_id=user_id,
                channel=channel,
                name=name or _vendors_name(kind, connected),
                settings=clean_json(connected.settings),
                sealed=sealed,
                now=self._clock.now(),
                most=MAX_ENDPOINTS,
            )
            if row is None:
                raise _too_many()
            await announce(connection, endpoint_id)
        made = _connection(row)
        endpoint = Endpoint(endpoint_id, user_id, channel, connected.secrets, connected.settings)
        try:
            # Now that it is known here: the vendor may call at once.
            await kind.register(endpoint, self.webhook_url(made))
        except BaseException:
            # Of a try that had no answer the vendor may have kept something, too.
            await self.disconnect(user_id, endpoint_id)
            raise
        return Opened(made, self.webhook_url(made), connected.shown)

    async def reconnect(
        self, user_id: UUID, endpoint_id: UUID, fields: Mapping[str, str] | None = None
    ) -> Opened:
        """Register its webhook anew, with what is known or with other `fields`. Raises as `connect` does.

        Where it is another bot's then, the old one's webhook goes.
        """
        row = await self._row(user_id, endpoint_id)
        kind = self._kind(row["channel"])
        endpoint = await open_endpoint(self._seal, row)
        settings = {
            name: str(value)
            for name, value in endpoint.settings.items()
            if isinstance(value, str | int) and not isinstance(value, bool)
        }
        given = {**settings, **endpoint.secrets, **_checked(kind, fields or {})}
        connected = await kind.connect(given)
        sealed = await self._sealed(user_id, endpoint_id, connected)
        await self._register_anew(kind, endpoint, connected)
        async with self._database.transaction() as connection:
            row = await queries.update_endpoint(
                connection,
                user_id=user_id,
                id=endpoint_id,
                settings=clean_json(connected.settings),
                sealed=sealed,
                now=self._clock.now(),
            )
            if row is None:
                raise NotFound(NO_ENDPOINT)
            await announce(connection, endpoint_id)
        made = _connection(row)
        return Opened(made, self.webhook_url(made), connected.shown)

    async def rename(self, user_id: UUID, endpoint_id: UUID, name: str) -> Connection:
        """Give it another name."""
        async with self._database.connection() as connection:
            row = await queries.rename_endpoint(
                connection, user_id=user_id, id=endpoint_id, name=_name(name), now=self._clock.now()
            )
        if row is None:
            raise NotFound(NO_ENDPOINT)
        return _connection(row)

    async def disconnect(self, user_id: UUID, endpoint_id: UUID) -> None:
        """Remove it with all that came in there; its conversations stay.

        Where the vendor does not answer its webhook stays there, and finds nobody here.
        """
        await self._leave_row(await self._row(user_id, endpoint_id))
        async with self._database.transaction() as connection:
            await queries.delete_endpoint(connection, user_id=user_id, id=endpoint_id)
            await announce(connection, endpoint_id)

    async def leave(self, user_id: UUID) -> None:
        """Remove the webhooks of all of somebody's endpoints at their vendors, as far as they answer soon."""
        rows = [await self._row(user_id, one.id) for one in await self.endpoints(user_id)]
        try:
            async with asyncio.timeout(LEAVING_SECONDS):
                await asyncio.gather(*(self._leave_row(row) for row in rows))
        except TimeoutError:
            log.warning("webhooks_not_removed", user_id=str(user_id))

    async def senders(self, user_id: UUID, endpoint_id: UUID) -> list[Sender]:
        """Who was let in, who waits, who is blocked. Raises: NotFound."""
        await self._row(user_id, endpoint_id)
        async with self._database.connection() as connection:
            rows = await every(queries.list_senders(connection, user_id=user_id, endpoint_id=endpoint_id))
        return [_sender(row) for row in rows]

    async def approve(self, user_id: UUID, endpoint_id: UUID, code: str) -> Sender:
        """Let in whoever was told this code; what they said last goes to the agent. Raises: NotFound."""
        hashed = code_hash(endpoint_id, code)
        now = self._clock.now()
        where = {"user_id": user_id, "endpoint_id": endpoint_id}
        async with self._database.transaction() as connection:
            await queries.lock_endpoint(connection, user_id=user_id, id=endpoint_id)
            row = await queries.approve_code(connection, code_hash=hashed, now=now, **where)
            if row is None:
                raise NotFound("Nobody was told this code, or it has expired. Codes are good for an hour.")
            await queries.let_in(connection, sender=row["sender"], most=WAITING_KEPT, now=now, **where)
        return _sender(row)

    async def set_sender(self, user_id: UUID, endpoint_id: UUID, sender: str, state: str) -> Sender:
        """Let somebody in by their id, or block them. Raises: NotFound."""
        if not sender or len(sender) > MAX_ID or clean(sender) != sender:
            raise InvalidInput("This is not the id of a sender.")
        now = self._clock.now()
        where = {"user_id": user_id, "endpoint_id": endpoint_id}
        async with self._database.transaction() as connection:
            if await queries.lock_endpoint(connection, user_id=user_id, id=endpoint_id) is None:
                raise NotFound(NO_ENDPOINT)
            row = await queries.set_sender(connection, sender=sender, state=state, now=now, **where)
            if state == "approved":
                await queries.let_in(connection, sender=sender, most=WAITING_KEPT, now=now, **where)
        return _sender(row)

    async def remove_sender(self, user_id: UUID, endpoint_id: UUID, sender: str) -> None:
        """Forget them: at their next message they are a stranger. Raises: NotFound."""
        async with self._database.connection() as connection:
            gone = await queries.drop_sender(
                connection, user_id=user_id, endpoint_id=endpoint_id, sender=clean(sender)
            )
        if gone is None:
            raise NotFound(_NO_SENDER)

    async def _register_anew(self, kind: Channel, known: Endpoint, connected: Connected) -> None:
        url = self._address(kind.name, known.id)
        moved = connected.settings != known.settings
        if moved:
            await self._leave(kind, known)
        try:
            await kind.register(replace(known, secrets=connected.secrets, settings=connected.settings), url)
        except OcmtError:
            if moved:  # what is kept is still the old one
                with suppress(OcmtError):
                    await kind.register(known, url)
            raise

    async def _leave_row(self, row: Any) -> None:
        try:
            await self._leave(self._kind(row["channel"]), await open_endpoint(self._seal, row))
        except OcmtError as error:
            log.warning("endpoint_not_opened", endpoint_id=str(row["id"]), error=error.message)

    async def _leave(self, kind: Channel, endpoint: Endpoint) -> None:
        """Remove its webhook there, as well as that can be done now."""
        try:
            await kind.disconnect(endpoint)
        except OcmtError as error:
            log.warning("webhook_not_removed", endpoint_id=str(endpoint.id), error=error.message)

    async def _row(self, user_id: UUID, endpoint_id: UUID) -> Any:
        async with self._database.connection() as connection:
            row = await queries.find_endpoint(connection, user_id=user_id, id=endpoint_id)
        if row is None:
            raise NotFound(NO_ENDPOINT)
        return row

    def _kind(self, channel: str) -> Channel:
        kind = self.kinds.get(channel)
        if kind is None:
            raise InvalidInput(f"A channel is one of: {', '.join(sorted(self.kinds))}.")
        return kind

    async def _sealed(self, user_id: UUID, endpoint_id: UUID, connected: Connected) -> bytes:
        plain = json.dumps(dict(connected.secrets)).encode()
        return await self._seal.seal(user_id, plain, bound_to(endpoint_id))

    def _address(self, channel: str, endpoint_id: UUID) -> str:
        return f"{self._url}/webhooks/{channel}/{endpoint_id}"


def _checked(kind: Channel, fields: Mapping[str, str]) -> dict[str, str]:
    """What was filled in, without what was left empty."""
    for name, text in fields.items():
        if name not in kind.fields:
            raise InvalidInput(f"{kind.label} has these fields: {', '.join(kind.fields)}.")
        if len(text) > MAX_FIELD or clean(text) != text:
            raise InvalidInput(f"The field {name} is too long, or has characters that can not be.")
    return {name: text.strip() for name, text in fields.items() if text.strip()}


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > 100 or not name.isprintable():
        raise InvalidInput("A name has between 1 and 100 printable characters.")
    return name


def _vendors_name(kind: Channel, connected: Connected) -> str:
    printable = "".join(letter for letter in clean(connected.name, 100) if letter.isprintable())
    return printable.strip() or kind.label


def _too_many() -> LimitReached:
    return LimitReached(f"You have {MAX_ENDPOINTS} channels. Disconnect one first.")


def _connection(row: Any) -> Connection:
    return Connection(**{name: row[name] for name in Connection.__dataclass_fields__})


def _sender(row: Any) -> Sender:
    return Sender(**{name: row[name] for name in Sender.__dataclass_fields__})
