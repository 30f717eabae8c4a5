"""Room for agents: as many as there is memory for, the others in line, nobody passed or counted twice."""

import asyncio
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.agents.admission import MAX_WAITING, Admission
from ocmt.errors import LimitReached, SetupProblem, Unavailable
from ocmt.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

A, B, C, D = (UUID(int=number) for number in range(4))


def ask(
    admission: Admission, user: UUID, size: int = 2, places: list[int] | None = None
) -> asyncio.Task[None]:
    seen = [] if places is None else places
    return asyncio.create_task(admission.enter(user, size, timeout=60, show=seen.append))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_finds_room_enters_and_who_does_not_waits_in_line() -> None:
    admission = Admission(4, VirtualClock())
    await ask(admission, A)
    await ask(admission, B)
    places: list[int] = []
    third, fourth = ask(admission, C), ask(admission, D, places=places)
    await settle()
    assert not third.done()
    assert (places, admission.shortage) == ([2], 2)
    admission.leave(A)
    await third
    assert places == [2, 1]
    assert not fourth.done()
    admission.leave(A)
    assert not fourth.done(), "what has left once is not counted again"
    admission.leave(B)
    await fourth
    assert admission.used == 4


async def test_the_small_do_not_pass_the_large() -> None:
    admission = Admission(4, VirtualClock())
    await ask(admission, A, 3)
    large, small = ask(admission, B, 4), ask(admission, C, 1)
    await settle()
    assert not small.done()
    admission.leave(A)
    await large
    admission.leave(B)
    await small


async def test_an_agent_that_is_inside_needs_no_second_place() -> None:
    admission = Admission(2, VirtualClock())
    await ask(admission, A)
    await ask(admission, A)
    assert admission.used == 2


async def test_one_that_has_shrunk_makes_room_and_grows_again_only_where_there_is_some() -> None:
    admission = Admission(4, VirtualClock())
    await ask(admission, A, 4)
    admission.shrink(A, 1)
    await ask(admission, B, 2)
    growing = ask(admission, A, 4)
    await settle()
    assert (growing.done(), admission.shortage) == (False, 2)
    admission.leave(B)
    await growing
    assert admission.used == 4


async def test_who_waits_too_long_is_told_so_and_the_line_moves_up() -> None:
    clock = VirtualClock()
    admission = Admission(2, clock)
    await ask(admission, A)
    impatient = ask(admission, B)
    await settle()
    places: list[int] = []
    await clock.advance(30)
    patient = ask(admission, C, places=places)
    await settle()
    await clock.advance(31)
    with pytest.raises(Unavailable, match="in use just now"):
        await impatient
    assert places == [2, 1]
    admission.leave(A)
    await patient


async def test_who_gives_up_leaves_no_trace() -> None:
    admission = Admission(2, VirtualClock())
    await ask(admission, A)
    gone = ask(admission, B)
    await settle()
    gone.cancel()
    await asyncio.wait([gone])
    assert admission.shortage == 0
    admission.leave(A)
    assert admission.used == 0


async def test_who_gives_up_in_the_moment_of_being_let_in_leaves_no_trace_either() -> None:
    admission = Admission(2, VirtualClock())
    await ask(admission, A)
    gone = ask(admission, B)
    await settle()
    admission.leave(A)
    gone.cancel()
    await asyncio.wait([gone])
    assert admission.used == 0


async def test_more_than_the_machine_has_is_refused_with_what_to_do() -> None:
    with pytest.raises(SetupProblem, match="OCMT_AGENTS_MEMORY"):
        await ask(Admission(2, VirtualClock()), A, 3)


async def test_the_line_has_an_end() -> None:
    admission = Admission(1, VirtualClock())
    await ask(admission, A, 1)
    line = [ask(admission, uuid4(), 1) for _ in range(MAX_WAITING)]
    await settle()
    with pytest.raises(LimitReached):
        await ask(admission, B, 1)
    for task in line:
        task.cancel()
    await asyncio.wait(line)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["enter", "leave", "cancel"])), max_size=40))
async def test_never_more_inside_than_fit_and_nobody_waits_while_there_is_room(
    steps: list[tuple[int, str]],
) -> None:
    admission = Admission(6, VirtualClock())
    asked: dict[UUID, asyncio.Task[None]] = {}
    for number, what in steps:
        user, size = UUID(int=number), 1 + number % 4
        task = asked.get(user)
        if what == "enter" and (task is None or task.done()):
            asked[user] = ask(admission, user, size)
        elif what == "leave" and task is not None and task.done():
            admission.leave(user)
            del asked[user]
        elif what == "cancel" and task is not None:
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                del asked[user]
        await settle()
        inside = [user for user, task in asked.items() if task.done()]
        assert admission.used == sum(1 + user.int % 4 for user in inside) <= 6
        waiting = [user for user, task in asked.items() if not task.done()]
        assert (admission.shortage > 0) == bool(waiting)
    for task in asked.values():
        task.cancel()
    if asked:
        await asyncio.wait(asked.values())
