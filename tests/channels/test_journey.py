"""From the webhook to the answer at the vendor."""

from __future__ import annotations

from tests.agents.replica import until
from tests.channels.conftest import House


async def test_a_webhook_becomes_a_turn_and_its_answer_goes_back(house: House) -> None:
    async with house.at_work():
        assert (await house.post(id="1", text="Hi", thread="t")).status == 200
        await house.becomes("1", "answering")
        await until(lambda: house.fake.typed == ["t"])
        assert await house.answer("x" * 250) == 1
        await house.becomes("1", "done")
        await until(lambda: len(house.fake.sent) == 3)
    assert [len(one.text) for one in house.fake.sent] == [100, 100, 50]
    assert {one.thread for one in house.fake.sent} == {"t"}
    assert len({one.key for one in house.fake.sent}) == 3
    (turn,) = await house.turns()
    assert turn["text"] == "Hi"
    (conversation,) = await house.chat.conversations(house.anna)
    assert conversation.title == "Fake: t"
