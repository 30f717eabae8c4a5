"""Vaults of the old production: every sample opens both ways, wrong secrets harm nothing, rubbish is said in
words."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.errors import LimitReached, NotFound, OcmtError
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from ocmt.vault.imported import model
from ocmt.vault.imported.model import DoesNotOpen, NotAVault
from ocmt.vault.imported.service import ImportedVaults
from ocmt.vault.service import Vault
from tests.accounts import make_user

from ..conftest import Open

pytestmark = pytest.mark.anyio

SAMPLES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vaults.json").read_text())
"""Made by the old production's own code, with passwords, phrases and what is in them."""
FIELDS: dict[str, Any] = json.loads(Path(__file__).with_name("fields.json").read_text())
KEYS = {int(version): bytes.fromhex(key) for version, key in FIELDS["keys"].items()}


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_every_sample_opens_both_ways(sample: dict[str, Any]) -> None:
    document = model.parse(sample["document"])
    assert model.open_by_password(document, sample["password"]) == sample["payload"]
    assert model.open_by_words(document, sample["phrase"]) == sample["payload"]
    assert model.open_by_words(document, f"  {sample['phrase'].upper()}\n") == sample["payload"]


@pytest.mark.parametrize(("text", "plain"), FIELDS["fields"])
def test_fields_open_by_their_keys(text: str, plain: str) -> None:
    assert model.decrypt_field(text, KEYS).decode() == plain
    with pytest.raises(DoesNotOpen):
        model.decrypt_field(text, {version: bytes(32) for version in KEYS})
    with pytest.raises(DoesNotOpen):
        model.decrypt_field(text, {})


@given(st.text())
def test_what_is_no_field_is_said_in_words(text: str) -> None:
    with pytest.raises((NotAVault, DoesNotOpen)):
        model.decrypt_field(text, KEYS)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict):
        return [path]
    return [path, *(one for name, inner in value.items() for one in paths_of(inner, (*path, name)))]


@given(
    path=st.sampled_from(paths_of(SAMPLES[0]["document"])),
    value=st.none() | st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=2),
)
def test_a_mangled_document_gives_words_and_never_a_crash(path: tuple[Any, ...], value: Any) -> None:
    document: Any = copy.deepcopy(SAMPLES[0]["document"])
    if path:
        place = document
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
    else:
        document = value
    refusal: OcmtError | None = None
    try:
        parsed = model.parse(document)
        # Not by the password: 64 MiB each time.
        model.open_by_words(parsed, SAMPLES[0]["phrase"])
    except OcmtError as error:
        refusal = error
    assert refusal is None or (refusal.status in (400, 403) and refusal.message)


@pytest.mark.parametrize(
    ("name", "value"), [("memory", 2**30), ("iterations", 10_000), ("parallelism", 255), ("memory", 1)]
)
def test_a_document_that_would_take_all_memory_is_refused(name: str, value: int) -> None:
    document = copy.deepcopy(SAMPLES[0]["document"])
    document["kdf"][name] = value
    with pytest.raises(NotAVault):
        model.parse(document)


def test_nothing_of_a_payload_is_lost() -> None:
    payload = {
        "credentials": [
            {"id": "1", "provider": "openai", "type": "api_key", "value": "sk-0123456789abcdef"},
            {"id": "2", "provider": "Weird Provider!", "type": "x", "value": "v"},
            "rubbish",
        ],
        "integrations": {"google": {"accessToken": "at"}},
        "memory": {"facts": ["ünï☕" * 20_000]},
    }
    items = {item.name: item for item in model.items_of(payload)}
    assert items["openai_api_key"].kind == "provider_key"
    assert items["imported_weird_provider_2"].value == "v"
    assert json.loads(items["imported_google_sign_in"].value) == {"accessToken": "at"}
    notes = [item.value for name, item in items.items() if name.startswith("imported_vault")]
    assert len(notes) > 1
    assert all(len(note.encode()) <= 60_000 for note in notes)
    assert json.loads("".join(notes)) == payload


class TestUnlocking:
    async def test_by_password_it_becomes_items_of_ones_own(
        self, imported: ImportedVaults, vault: Vault, alice: UUID
    ) -> None:
        sample = SAMPLES[0]
        await imported.put(alice, sample["document"])
        names = await imported.unlock_by_password(alice, sample["password"])
        assert "imported_vault" in names
        assert json.loads(await vault.reveal(alice, "imported_vault")) == sample["payload"]
        state = await imported.state(alice)
        assert state is not None
        assert state.unlocked_at is not None
        with pytest.raises(NotFound):
            await imported.unlock_by_password(alice, sample["password"])

    async def test_the_old_form_is_gone_with_it_and_importing_again_harms_nothing(
        self, imported: ImportedVaults, alice: UUID, database: Database
    ) -> None:
        await imported.put(alice, SAMPLES[1]["document"])
        await imported.unlock_by_words(alice, SAMPLES[1]["phrase"])
        await imported.put(alice, SAMPLES[1]["document"])
        async with database.connection() as connection:
            row = await connection.fetchrow("select document, unlocked_at from imported_vaults")
        assert row is not None
        assert row["document"] == {}
        assert row["unlocked_at"] is not None

    async def test_a_wrong_password_harms_nothing_and_makes_the_next_wait_longer_each_time(
        self, imported: ImportedVaults, alice: UUID, clock: VirtualClock
    ) -> None:
        await imported.put(alice, SAMPLES[0]["document"])
        for wait in (1, 2, 4):
            with pytest.raises(DoesNotOpen, match="not the password"):
                await imported.unlock_by_password(alice, "wrong")
            with pytest.raises(LimitReached) as early:
                await imported.unlock_by_password(alice, SAMPLES[0]["password"])
            assert early.value.retry_after == wait
            await clock.advance(wait)
        assert await imported.unlock_by_password(alice, SAMPLES[0]["password"])

    async def test_what_is_in_the_vault_already_stays(
        self, imported: ImportedVaults, vault: Vault, alice: UUID
    ) -> None:
        sample = next(
            one for one in SAMPLES if any(c["provider"] == "openai" for c in one["payload"]["credentials"])
        )
        await vault.put(alice, "openai_api_key", "sk-my-newer-key-0123456789")
        await imported.put(alice, sample["document"])
        await imported.unlock_by_password(alice, sample["password"])
        assert await vault.reveal(alice, "openai_api_key") == "sk-my-newer-key-0123456789"

    async def test_over_http(
        self, imported: ImportedVaults, open_browser: Open, alice: UUID, database: Database
    ) -> None:
        browser = await open_browser(alice)
        assert (await browser.call("GET", "/api/v1/vault/imported")).json()["there"] is False
        assert (await browser.call("POST", "/api/v1/vault/unlock", {"password": "x"})).status == 404
        await imported.put(alice, SAMPLES[2]["document"])
        few = await browser.call("POST", "/api/v1/vault/recover", {"phrase": "three words only"})
        assert (few.status, few.json()["code"]) == (403, "vault_locked")
        early = await browser.call("POST", "/api/v1/vault/recover", {"phrase": SAMPLES[2]["phrase"]})
        assert (early.status, early.headers["retry-after"]) == (429, "1")
        bob = await open_browser(await make_user(database, "bob@example.org"))
        assert (
            await bob.call("POST", "/api/v1/vault/recover", {"phrase": SAMPLES[2]["phrase"]})
        ).status == 404
