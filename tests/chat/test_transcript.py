"""Conversations as JSONL in the object store."""

import json
from uuid import UUID

import pytest

from ocmt.chat.model import Conversation, Turn, transcript_key
from ocmt.chat.transcript import TranscriptWriter
from ocmt.errors import NotFound
from ocmt.platform.database import Database, Hints
from ocmt.testing.gateway import Fail, Say
from tests.agents.replica import Gateways
from tests.chat.conftest import Office

pytestmark = pytest.mark.anyio


@pytest.fixture
def writer(database: Database, office: Office, hints: Hints) -> TranscriptWriter:
    return TranscriptWriter(database, office.objects, hints)


@pytest.fixture
async def turn(office: Office, anna: UUID, gateways: Gateways) -> Turn:
    gateways.of(anna).script(Say("Good day"))
    return await office.ended(await office.post(anna, "hello"))


def key_of(turn: Turn) -> str:
    return transcript_key(turn.user_id, turn.conversation_id)


async def test_what_was_asked_and_answered_is_a_file(
    office: Office, anna: UUID, turn: Turn, writer: TranscriptWriter, gateways: Gateways
) -> None:
    gateways.of(anna).script(Fail())
    await office.ended(await office.post(anna, "and now?", turn.conversation_id))
    assert await writer.write_due() == 1
    lines = [json.loads(line) for line in (await office.objects.get(key_of(turn))).splitlines()]
    assert [line["type"] for line in lines] == ["conversation", *["message"] * 4]
    assert [(line["role"], line["text"]) for line in lines[1:]] == [
        ("user", "hello"),
        ("assistant", "Good day"),
        ("user", "and now?"),
        ("assistant", None),
    ]
    assert lines[4]["status"] == "failed"
    assert lines[4]["error"]["code"] == "agent_error"
    assert await writer.write_due() == 0, "it is up to date"


async def test_a_conversation_takes_its_transcript_with_it(
    office: Office, anna: UUID, turn: Turn, writer: TranscriptWriter
) -> None:
    await writer.write_due()
    await office.chat.delete(anna, turn.conversation_id)
    with pytest.raises(NotFound):
        await office.objects.get(key_of(turn))


async def test_one_deleted_while_it_is_written_leaves_no_transcript(
    office: Office, anna: UUID, turn: Turn, writer: TranscriptWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = office.objects.put

    async def deleted_meanwhile(key: str, data: bytes) -> None:
        await office.chat.delete(anna, turn.conversation_id)
        await put(key, data)

    monkeypatch.setattr(office.objects, "put", deleted_meanwhile)
    assert await writer.write_due() == 1
    assert office.objects.stored == {}


async def test_a_store_that_does_not_answer_keeps_the_conversation(
    office: Office, anna: UUID, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(key: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(office.objects, "delete", broken)
    with pytest.raises(OSError, match="disk full"):
        await office.chat.delete(anna, turn.conversation_id)
    assert isinstance(await office.chat.conversation(anna, turn.conversation_id), Conversation)
