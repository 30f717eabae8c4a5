"""Files that are sent with messages: whose they are, how many, how large; and that none is lost or left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from ocmt.chat import attachments, model
from ocmt.chat.attachments import Attachments
from ocmt.chat.model import (
    MAX_ATTACHED_BYTES,
    MAX_IMAGE_BYTES,
    MAX_UNSENT,
    UNSENT_LIFE,
    Attachment,
    TurnStatus,
    attachment_key,
    check_attachments,
    file_name,
    media_type,
)
from ocmt.chat.service import Chat
from ocmt.errors import Conflict, InvalidInput, LimitReached, NotFound, TooLarge, Unavailable
from ocmt.platform.database import Database
from ocmt.platform.objects import LocalObjects
from ocmt.platform.storage import Budgets
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import FaultyObjects, MemoryObjects
from tests.accounts import make_user
from tests.agents.replica import Gateways, until
from tests.chat.conftest import Office


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def chat(database: Database, clock: VirtualClock, objects: MemoryObjects) -> Chat:
    return Chat(database, clock, objects)


@pytest.fixture
async def anna(database: Database) -> UUID:
    return await make_user(database, "anna@example.org")


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def kept(chat: Chat, user_id: UUID, name: str = "a.txt", content: bytes = b"hello") -> Attachment:
    return await chat.attachments.keep(user_id, name, "text/plain", pieces(content))


async def posted(
    chat: Chat, user_id: UUID, *files: Attachment, text: str = "See", key: str = "k"
) -> model.Turn:
    conversation = await chat.create_conversation(user_id)
    return await chat.post(user_id, conversation.id, text, key=key, attachments=[one.id for one in files])


# Keeping


async def test_a_file_is_kept_whole_with_its_name_and_type(chat: Chat, anna: UUID) -> None:
    made = await chat.attachments.keep(anna, "Fotos/cat.png", "image/png; q=1", pieces(b"\x89P", b"", b"NG"))
    assert (made.name, made.media_type, made.size) == ("cat.png", "image/png", 4)
    assert await chat.attachments.content(anna, made.id) == (made, b"\x89PNG")


async def test_nobody_else_knows_of_it(chat: Chat, anna: UUID, database: Database) -> None:
    made = await kept(chat, anna)
    bert = await make_user(database, "bert@example.org")
    with pytest.raises(NotFound):
        await chat.attachments.content(bert, made.id)
    with pytest.raises(NotFound):
        await chat.attachments.drop(bert, made.id)
    with pytest.raises(InvalidInput):
        await posted(chat, bert, made)
    with pytest.raises(LimitReached):  # nor can its place be taken
        await chat.attachments.keep(bert, "b", None, pieces(b"x"), attachment_id=made.id)
    assert (await chat.attachments.content(anna, made.id))[1] == b"hello"


async def test_an_empty_one_is_refused_and_leaves_nothing(
    chat: Chat, anna: UUID, objects: MemoryObjects
) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        await chat.attachments.keep(anna, "a", None, pieces())
    assert objects.stored == {}


@pytest.mark.parametrize("store", ["memory", "local"])
async def test_too_large_a_one_is_refused_before_it_is_all_here(
    database: Database, clock: VirtualClock, anna: UUID, tmp_path: Path, store: str
) -> None:
    objects = MemoryObjects() if store == "memory" else LocalObjects(tmp_path)
    kept = Attachments(database, clock, objects)
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 1024 * 1024

    with pytest.raises(TooLarge, match="16 MB"):
        await kept.keep(anna, "a", None, endless())
    assert given <= MAX_ATTACHED_BYTES // 1024**2 + 1
    assert await objects.list("") == []


async def test_uploads_that_come_to_nothing_take_no_place(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    objects = FaultyObjects(error=OSError)
    kept = Attachments(database, clock, objects)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ClientDisconnect

    begun = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield b"x"
        begun.set()
        await asyncio.Event().wait()

    for _ in range(MAX_UNSENT):
        with pytest.raises(ClientDisconnect):
            await kept.keep(anna, "a", None, broken())
        left = asyncio.create_task(kept.keep(anna, "a", None, hanging()))
        await begun.wait()
        begun.clear()
        left.cancel()
        await asyncio.wait([left])
        objects.fail_at = len(objects.calls)
        with pytest.raises(Unavailable):
            await kept.keep(anna, "a", None, pieces(b"x"))
    async with database.connection() as connection:
        assert await connection.fetch("select from attachments") == []
    await kept.keep(anna, "a", None, pieces(b"x"))


async def test_what_comes_for_somebody_who_is_gone_by_then_does_not_stay(
    database: Database, clock: VirtualClock, anna: UUID, objects: MemoryObjects
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        async with database.connection() as connection:
            await connection.execute("delete from users where id = $1", anna)

    with pytest.raises(NotFound):
        await Attachments(database, clock, objects).keep(anna, "a", None, slow())
    assert objects.stored == {}


async def test_many_that_nobody_sends_are_refused(chat: Chat, anna: UUID) -> None:
    made = [await kept(chat, anna) for _ in range(MAX_UNSENT)]
    with pytest.raises(LimitReached, match="not sent yet"):
        await kept(chat, anna)
    await chat.attachments.drop(anna, made[0].id)
    await posted(chat, anna, made[1])
    await kept(chat, anna)
    await kept(chat, anna)


async def test_there_is_a_limit_to_all_that_is_kept(
    database: Database, clock: VirtualClock, objects: MemoryObjects, anna: UUID
) -> None:
    # A file of unknown size counts as the largest until it is there.
    chat = Chat(database, clock, objects, Budgets(attachment_bytes=MAX_ATTACHED_BYTES))
    turn = await posted(chat, anna, await kept(chat, anna, content=b"x" * 10))
    with pytest.raises(LimitReached, match="delete conversations"):
        await kept(chat, anna)
    await chat.stop(anna, turn.id)
    async with chat.attachments._database.connection() as connection:
        await connection.execute("update turns set status = 'stopped'")
    await chat.delete(anna, turn.conversation_id)
    await kept(chat, anna)


async def test_a_store_that_is_away_is_said_so(database: Database, clock: VirtualClock, anna: UUID) -> None:
    objects = FaultyObjects(error=OSError)
    kept = Attachments(database, clock, objects)
    objects.fail_at = len(objects.calls)
    with pytest.raises(Unavailable):
        await kept.keep(anna, "a", None, pieces(b"x"))
    made = await kept.keep(anna, "a", None, pieces(b"x"))
    objects.fail_at = len(objects.calls)
    with pytest.raises(Unavailable):
        await kept.content(anna, made.id)


# Sending


async def test_a_message_has_its_files_and_may_have_no_words(chat: Chat, anna: UUID) -> None:
    first, second = await kept(chat, anna, "b.txt"), await kept(chat, anna, "a.txt")
    turn = await posted(chat, anna, first, second, text="")
    assert list(turn.attachments) == [first.as_data(), second.as_data()]
    assert (await chat.conversation(anna, turn.conversation_id)).title == "b.txt"
    page = await chat.history(anna, turn.conversation_id)
    assert page.turns[0].attachments == turn.attachments
    assert await chat.attachments.sent(anna) == [first, second]


async def test_the_same_message_again_is_the_same_turn_and_another_is_none(chat: Chat, anna: UUID) -> None:
    one, other = await kept(chat, anna), await kept(chat, anna)
    turn = await posted(chat, anna, one)
    where = (anna, turn.conversation_id, "See")
    assert (await chat.post(*where, key="k", attachments=[one.id])).id == turn.id
    for different in ([], [other.id], [one.id, other.id]):
        with pytest.raises(Conflict):
            await chat.post(*where, key="k", attachments=different)


async def test_a_file_is_sent_once(chat: Chat, anna: UUID) -> None:
    one = await kept(chat, anna)
    await posted(chat, anna, one)
    with pytest.raises(InvalidInput, match="sent already"):
        await posted(chat, anna, one, key="other")
    with pytest.raises(NotFound):
        await chat.attachments.drop(anna, one.id)


async def test_a_refused_message_leaves_its_files_to_the_next(chat: Chat, anna: UUID) -> None:
    one = await kept(chat, anna)
    with pytest.raises(InvalidInput):
        await chat.post(
            anna, (await chat.create_conversation(anna)).id, "x", key="k", attachments=[one.id, uuid4()]
        )
    with pytest.raises(InvalidInput, match="twice"):
        await posted(chat, anna, one, one)
    await posted(chat, anna, one)


async def test_neither_words_nor_files_is_no_message(chat: Chat, anna: UUID) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        await posted(chat, anna, text=" ")


def file(size: int, kind: str = "text/plain") -> Attachment:
    return Attachment(uuid4(), "a", kind, size)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([file(1)] * 11, "at most 10 files"),
        ([file(MAX_IMAGE_BYTES + 1, "image/png")], "6.1 MB"),
        ([file(MAX_ATTACHED_BYTES // 2), file(MAX_ATTACHED_BYTES // 2 + 1)], "16.1 MB"),
    ],
)
def test_too_much_for_one_message_is_said_in_numbers(files: list[Attachment], words: str) -> None:
    with pytest.raises(TooLarge, match=words):
        check_attachments(files)


def test_as_much_as_fits_is_taken() -> None:
    check_attachments([file(MAX_IMAGE_BYTES, "image/png"), file(MAX_ATTACHED_BYTES - MAX_IMAGE_BYTES)])


@given(st.text(max_size=300))
def test_whatever_a_file_is_called_its_name_is_plain(text: str) -> None:
    name = file_name(text)
    assert 0 < len(name) <= 120
    assert name.isprintable()
    assert not set(name) & set("/\\")
    assert name.rstrip(". ").lstrip() == name
    assert name.strip(".")
    assert file_name(name) == name


@pytest.mark.parametrize(
    ("said", "called"),
    [
        ("C:\\Users\\ada\\cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        ("", "file"),
        ("..", "file"),
        (".", "file"),
        ("...", "file"),
        (" . ", "file"),
        (".env", ".env"),
        ("a/.env.local", ".env.local"),
        (".gitignore", ".gitignore"),
        (" .env. ", ".env"),
        ("..env", "..env"),
        (".git", "git"),
        (".OpenClaw", "OpenClaw"),
        ("x/.ssh", "ssh"),
        (".ocmt", "ocmt"),
        ("./.git/config", "config"),
    ],
)
def test_a_path_is_no_name_and_a_dot_in_front_stays(said: str, called: str) -> None:
    assert file_name(said) == called


def test_a_long_name_keeps_its_ending() -> None:
    assert file_name("x" * 500 + ".pdf").endswith("x.pdf")


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("Image/PNG; charset=x", "image/png"),
        (None, "application/octet-stream"),
        ("text/html\r\nset-cookie: x", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
    ],
)
def test_a_media_type_is_one_or_the_general_one(said: str | None, taken: str) -> None:
    assert media_type(said) == taken


# Going


async def test_with_its_conversation_a_file_goes(chat: Chat, anna: UUID, objects: MemoryObjects) -> None:
    gone, stays = await kept(chat, anna), await kept(chat, anna)
    turn = await posted(chat, anna, gone)
    await posted(chat, anna, stays, key="other")
    async with chat.attachments._database.connection() as connection:
        await connection.execute("update turns set status = 'completed'")
    await chat.delete(anna, turn.conversation_id)
    assert await objects.list("") == [attachment_key(anna, stays.id)]


async def test_what_nobody_sent_goes_after_a_day(
    chat: Chat, anna: UUID, clock: VirtualClock, objects: MemoryObjects
) -> None:
    old = await kept(chat, anna)
    sent = await kept(chat, anna)
    await posted(chat, anna, sent)
    await clock.advance(UNSENT_LIFE.total_seconds() + 1)
    new = await kept(chat, anna)
    assert await chat.attachments.sweep() == 1
    assert await objects.list("") == sorted(attachment_key(anna, one.id) for one in (sent, new))
    with pytest.raises(InvalidInput):
        await posted(chat, anna, old, key="other")


async def test_a_sweep_that_dies_goes_on_later_and_nothing_is_sent_without_content(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    objects = FaultyObjects(error=OSError)
    chat = Chat(database, clock, objects)
    one = await kept(chat, anna)
    await clock.advance(UNSENT_LIFE.total_seconds() + 1)
    objects.fail_at = len(objects.calls)
    assert await chat.attachments.sweep() == 0
    with pytest.raises(InvalidInput):
        await posted(chat, anna, one)
    assert await chat.attachments.sweep() == 1
    assert objects.stored == {}


async def test_one_that_cannot_be_removed_keeps_no_other_and_no_deletion_from_being_done(
    database: Database, clock: VirtualClock, anna: UUID
) -> None:
    objects = FaultyObjects(error=OSError)
    chat = Chat(database, clock, objects)
    first, second = await kept(chat, anna), await kept(chat, anna)
    turn = await posted(chat, anna, first, second)
    async with database.connection() as connection:
        await connection.execute("update turns set status = 'completed'")
    objects.fail_at = len(objects.calls) + 2  # the first two are the transcript's
    await chat.delete(anna, turn.conversation_id)
    assert len(objects.stored) == 1
    assert await chat.attachments.sweep() == 1
    assert objects.stored == {}


# Arriving


async def test_the_agent_gets_the_files_with_the_message(
    office: Office, gateways: Gateways, anna: UUID
) -> None:
    one = await office.chat.attachments.keep(anna, "cat.png", "image/png", pieces(b"\x89PNG"))
    turn = await posted(office.chat, anna, one, text="Look")

    async def done() -> bool:
        return (await office.chat.history(anna, turn.conversation_id)).turns[0].status is TurnStatus.COMPLETED

    await until(done)
    gateway = gateways.of(anna)
    assert gateway.messages() == ["Look"]
    assert gateway.attached() == [("cat.png", "image/png", b"\x89PNG")]
    accepted = (await office.events(turn))[0]
    assert accepted.data["attachments"] == [one.as_data()]


async def test_a_store_that_is_away_for_a_moment_is_asked_again(
    office: Office, gateways: Gateways, anna: UUID
) -> None:
    one = await kept(office.chat, anna)
    content = office.objects.stored.pop(attachment_key(anna, one.id))
    asked = 0

    async def get(key: str) -> bytes:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OSError("away")
        return content

    office.objects.get = get  # type: ignore[method-assign]
    await posted(office.chat, anna, one)
    await until(lambda: gateways.of(anna).attached() == [("a.txt", "text/plain", b"hello")])


async def test_a_message_that_waits_for_room_can_be_stopped(office: Office, anna: UUID) -> None:
    room = office.chat.attachments._carrying
    for _ in range(attachments.CARRIED_AT_ONCE):
        await room.acquire()
    turn = await posted(office.chat, anna, await kept(office.chat, anna))

    async def becomes(turn: model.Turn, status: TurnStatus) -> None:
        async def so() -> bool:
            page = await office.chat.history(anna, turn.conversation_id)
            return page.turns[0].status is status

        await until(so)

    await becomes(turn, TurnStatus.RUNNING)
    await office.chat.stop(anna, turn.id)
    await becomes(turn, TurnStatus.STOPPED)
    room.release()
    await becomes(
        await posted(office.chat, anna, await kept(office.chat, anna), key="next"), TurnStatus.COMPLETED
    )


async def test_without_its_file_a_message_fails_in_words(office: Office, anna: UUID) -> None:
    one = await kept(office.chat, anna, "cat.png")
    await office.objects.delete(attachment_key(anna, one.id))
    turn = await posted(office.chat, anna, one)

    async def failed() -> bool:
        return (await office.chat.history(anna, turn.conversation_id)).turns[0].status is TurnStatus.FAILED

    await until(failed)
    error = (await office.chat.history(anna, turn.conversation_id)).turns[0].error
    assert error == {
        "code": "attachment_gone",
        "message": "The file cat.png is not there any more.",
        "retryable": False,
    }
