"""What mails say, how many of them go out, and that there is no other way out."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import pytest

import ocmt
from ocmt.identity import letters as written
from ocmt.identity import service as identity_service
from ocmt.identity.accounts import Accounts
from ocmt.identity.letters import BOUNDS, Kind, Letter
from ocmt.identity.limits import LINKS_TO_STRANGERS, LINKS_TO_USERS
from ocmt.platform.database import Database
from ocmt.platform.rate import Rate
from ocmt.testing.clock import VirtualClock

from .conftest import Letters

pytestmark = pytest.mark.anyio

SOURCE = Path(ocmt.__file__).parent
DAY = 24 * 3600.0
URL = "https://agents.example.org"


def calls(name: str) -> set[str]:
    """The modules in which something of that name is called."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and name == getattr(
                node.func, "id", getattr(node.func, "attr", None)
            ):
                found.add(str(path.relative_to(SOURCE)))
    return found


def test_letters_are_written_in_one_place_and_leave_by_one_way() -> None:
    assert calls("Letter") == {"identity/letters.py"}
    sends = {
        str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if "mail.send(" in path.read_text()
    }
    assert sends == {"identity/post.py"}


def test_every_kind_has_its_bounds() -> None:
    assert set(BOUNDS) == set(get_args(Kind))
    unbounded = {kind for kind, bounds in BOUNDS.items() if bounds.to is None}
    assert unbounded == {"sign_in"}, "these are counted where they are asked for"


def one_of_each(to: str) -> list[Letter]:
    return [
        written.notice(to, "A passkey was added", URL),
        written.approval(to, URL),
        written.invitation(to, URL, days=7),
        written.group_invitation(to, "ada@example.org", URL, group_id="g", days=7),
    ]


@pytest.mark.parametrize("number", range(4))
async def test_no_address_gets_more_than_its_bound_whoever_sends(
    accounts: Accounts, letters: Letters, number: int
) -> None:
    letter = one_of_each("victim@example.org")[number]
    bounds = BOUNDS[letter.kind]
    assert bounds.to is not None
    for about in range(bounds.to.burst + 20):
        again = Letter(letter.kind, letter.to, letter.subject, letter.text, about=f"{about}")
        await accounts.identity.deliver(again)
    assert len(letters.sent) == bounds.to.burst
    await accounts.identity.deliver(one_of_each("other@example.org")[number])
    assert letters.sent[-1][0] == "other@example.org", "nobody else is kept from theirs"


@pytest.mark.parametrize("number", [2, 3])
async def test_the_same_is_told_once_a_day(
    accounts: Accounts, letters: Letters, clock: VirtualClock, number: int
) -> None:
    for _ in range(3):
        await accounts.identity.deliver(one_of_each("bob@example.org")[number])
    assert len(letters.sent) == 1
    await clock.advance(DAY)
    await accounts.identity.deliver(one_of_each("bob@example.org")[number])
    assert len(letters.sent) == 2


def test_a_link_stands_on_a_line_of_its_own() -> None:
    letter = written.sign_in("ada@example.org", "https://host/sign-in#token=x", minutes=15)
    assert "https://host/sign-in#token=x" in letter.text.splitlines()
    assert "15 minutes" in letter.text
    assert "token=x" not in repr(letter)


@pytest.mark.parametrize(
    "by",
    [
        "evil.example/login@x.org",
        "confirm-your-salary/at/evil.example@x.org",
        "http//evil@x.org",
        "'-or-1@x.org",
        "a&b@x.org",
        "",
    ],
)
def test_no_address_that_reads_like_a_link_is_repeated(by: str) -> None:
    text = written.group_invitation("bob@example.org", by, URL, group_id="g", days=7).text
    assert text.startswith("Another user invites you")


def test_who_invites_is_named_by_the_verified_address() -> None:
    text = written.group_invitation("b@x.org", "ada.l+work@example.org", URL, group_id="g", days=7).text
    assert text.startswith("ada.l+work@example.org invites you")


class Recorder:
    """Passes statements on and remembers their names."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._queries, name)


@pytest.mark.parametrize("empty", [None, LINKS_TO_STRANGERS, LINKS_TO_USERS])
async def test_with_an_empty_purse_known_and_unknown_addresses_cost_the_same(
    accounts: Accounts, database: Database, monkeypatch: pytest.MonkeyPatch, empty: Rate | None
) -> None:
    identity = accounts.identity
    await identity.add_user("ada@example.org")
    if empty is not None:
        for _ in range(empty.burst):
            await identity.rates.take(empty, "")
    seen = []
    for email in ("ada@example.org", "eve@example.org"):
        recorder = Recorder(identity_service._queries)
        entrance = Recorder(identity_service._queries)
        with monkeypatch.context() as patch:
            patch.setattr(identity_service, "_queries", recorder)
            patch.setattr("ocmt.identity.entrance.service._users", entrance)
            await identity.prepare_link(email)
        seen.append((recorder.asked, entrance.asked))
    assert seen[0] == seen[1]
    async with database.connection() as connection:
        rows = await connection.fetchval("select count(*) from sign_in_links where email = 'eve@example.org'")
    assert rows == (0 if empty is LINKS_TO_STRANGERS else 1), "a flood of made-up addresses fills no table"
