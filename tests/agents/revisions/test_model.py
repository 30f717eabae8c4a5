"""Which revision an agent should run: by table, and by properties for every user and every share."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.agents.revisions.model import Revision, Standing, check, place, state_of, wanted, way_back
from ocmt.errors import InvalidInput

NOW = datetime(2026, 11, 24, tzinfo=UTC)
USER = UUID(int=7)


def rows(*shares: int, withdrawn: tuple[int, ...] = ()) -> list[Revision]:
    """Revisions 1, 2, … with those shares."""
    return [
        Revision(number, f"v{number}", share, NOW, withdrawn=number in withdrawn)
        for number, share in enumerate(shares, start=1)
    ]


def number(revision: Revision | None) -> int | None:
    return None if revision is None else revision.number


ALL = {f"v{number}" for number in range(1, 10)}


@pytest.mark.parametrize(
    ("standing", "revisions", "here", "runs"),
    [
        pytest.param(Standing(), rows(100), ALL, 1, id="a new agent: the only one"),
        pytest.param(Standing(), rows(100, 100), ALL, 2, id="a new agent: the newest for everybody"),
        pytest.param(Standing(), rows(100, 0), ALL, 1, id="not what is offered to nobody"),
        pytest.param(Standing(1), rows(100, 100), ALL, 2, id="up by itself"),
        pytest.param(Standing(2), rows(100, 0), ALL, 2, id="a smaller share takes it from nobody"),
        pytest.param(Standing(2), rows(100, 100, withdrawn=(2,)), ALL, 1, id="down: withdrawn"),
        pytest.param(Standing(1, pin=2), rows(100, 0), ALL, 2, id="pinned, whatever the share"),
        pytest.param(Standing(2, pin=1), rows(100, 100), ALL, 1, id="pinned down"),
        pytest.param(Standing(1, pin=2), rows(100, 0, 100), {"v1", "v3"}, 1, id="pinned to what is not here"),
        pytest.param(Standing(1, pin=2), rows(100, 0, 100, withdrawn=(2,)), ALL, 1, id="to a withdrawn"),
        pytest.param(
            Standing(1, pin=2, refused=frozenset({2})), rows(100, 0, 100), ALL, 1, id="to a refused one"
        ),
        pytest.param(Standing(1, refused=frozenset({2})), rows(100, 100), ALL, 1, id="not once more"),
        pytest.param(Standing(1, refused=frozenset({3})), rows(100, 100, 100), ALL, 2, id="the next best"),
        pytest.param(Standing(1), rows(100, 100), {"v1"}, 1, id="what is not here is not tried"),
        pytest.param(Standing(2), rows(100, 100), {"v1"}, 2, id="never down as it is not here"),
        pytest.param(
            Standing(2, refused=frozenset({1})),
            rows(100, 100, withdrawn=(2,)),
            ALL,
            2,
            id="withdrawn, but it can run nothing else",
        ),
        pytest.param(Standing(), rows(100), set(), None, id="nothing is here"),
        pytest.param(Standing(), [], ALL, None, id="there are none"),
    ],
)
def test_what_an_agent_should_run(
    standing: Standing, revisions: list[Revision], here: set[str], runs: int | None
) -> None:
    assert number(wanted(USER, standing, revisions, here)) == runs


@pytest.mark.parametrize(
    ("standing", "revisions", "here", "back"),
    [
        pytest.param(Standing(1), rows(100, 100), ALL, 1, id="to what it ran"),
        pytest.param(Standing(), rows(100, 100), ALL, 1, id="a new agent: to the one before"),
        pytest.param(Standing(), rows(0, 100), ALL, None, id="a new agent that is offered no other"),
        pytest.param(Standing(1), rows(100, 100), {"v2"}, None, id="not to what is not here"),
    ],
)
def test_where_it_goes_if_it_does_not_come_up_on_the_newest(
    standing: Standing, revisions: list[Revision], here: set[str], back: int | None
) -> None:
    assert number(way_back(USER, standing, revisions, here, revisions[-1])) == back


numbers = st.integers(1, 5)
standings = st.builds(
    Standing,
    ran=st.none() | numbers,
    pin=st.none() | numbers,
    refused=st.frozensets(numbers, max_size=3),
)
shares = st.integers(0, 100)


@given(user=st.uuids(), standing=standings, data=st.data())
def test_a_larger_share_never_moves_anybody_back(user: UUID, standing: Standing, data: st.DataObject) -> None:
    before = data.draw(st.lists(shares, min_size=5, max_size=5))
    raised = [data.draw(st.integers(share, 100)) for share in before]
    withdrawn = tuple(data.draw(st.frozensets(numbers)))
    here = data.draw(st.sets(st.sampled_from(sorted(ALL))))
    first = wanted(user, standing, rows(*before, withdrawn=withdrawn), here)
    second = wanted(user, standing, rows(*raised, withdrawn=withdrawn), here)
    if first is not None and not first.withdrawn:
        assert second is not None
        assert second.number >= first.number


@given(user=st.uuids(), ran=numbers, before=st.lists(shares, min_size=5, max_size=5), data=st.data())
def test_no_share_at_all_takes_from_an_agent_what_it_runs(
    user: UUID, ran: int, before: list[int], data: st.DataObject
) -> None:
    here = data.draw(st.sets(st.sampled_from(sorted(ALL))))
    chosen = wanted(user, Standing(ran), rows(*before), here)
    assert chosen is not None
    assert chosen.number >= ran


@given(user=st.uuids(), standing=standings, before=st.lists(shares, min_size=5, max_size=5))
def test_what_it_did_not_come_up_on_is_never_tried_again(
    user: UUID, standing: Standing, before: list[int]
) -> None:
    chosen = wanted(user, standing, rows(*before), ALL)
    assert chosen is None or chosen.number == standing.ran or chosen.number not in standing.refused


def test_a_share_is_that_share_of_the_users_and_others_come_first_each_time() -> None:
    users = [uuid4() for _ in range(2_000)]
    for revision in (1, 2):
        inside = sum(place(user, revision) < 20 for user in users)
        assert 300 < inside < 500
    both = sum(place(user, 1) < 20 and place(user, 2) < 20 for user in users)
    assert both < 150, "a fifth of a fifth"


def test_everybody_is_in_a_full_share() -> None:
    assert all(place(uuid4(), 3) < 100 for _ in range(500))


def test_each_has_a_state_in_one_word() -> None:
    known = rows(100, 100, 100, 20, 0, withdrawn=(3,))
    states = [state_of(revision, known) for revision in known]
    assert states == ["earlier", "current", "withdrawn", "canary", "added"]


@pytest.mark.parametrize(("image", "share"), [("", 0), ("-v", 0), ("a b", 0), ("v2", -1), ("v2", 101)])
def test_nonsense_is_refused(image: str, share: int) -> None:
    with pytest.raises(InvalidInput):
        check(image, share)
