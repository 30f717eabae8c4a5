"""A lint: a statement that touches a user's table says whose rows it means, or is on the list, with the
reason.

It reads the named statements of every room. What it finds by is plain: the tables of the schema that have a
`user_id`, and the parameter `:user_id` (or the hash of a token, which is as good as a name).
"""

from __future__ import annotations

import re
from pathlib import Path

import ocmt

ROOT = Path(ocmt.__file__).parent
SCHEMA = "\n".join(path.read_text() for path in sorted(ROOT.glob("platform/migrations/versions/*.sql")))
OWN = re.compile(r":(user_id|owner_id|token_hash|key_hash|user_ids|agent_ids)\b")

ABOUT_EVERYBODY = {
    "agents": ("what runs for all users", ["list_agents", "drop_expired_holds", "expire_leases"]),
    "agents/revisions": ("counts for operators", ["count_revisions"]),
    "agents/snapshots": (
        "a backup asks which objects are needed, and a first start whether the newest is in the store",
        ["count_running", "find_newest_of_all", "find_all_snapshots"],
    ),
    "backup": (
        "everything at once",
        [
            "needs_secrets",
            "channels_need_secrets",
            "forget_agents",
            "forget_holds",
            "forget_transcripts",
            "conversation_exists",
            "end_sessions",
            "forget_half_ways",
            "find_revocations",
            "keep_revoked",
            "keep_deleted",
        ],
    ),
    "channels": (
        "webhooks come by the endpoint's random address, the workers look for work, operators look at all",
        [
            "list_all_endpoints",
            "endpoint_owner",
            "find_endpoints",
            "keep_deliveries",
            "keep_trusted",
            "count_deliveries",
            "uncount_known",
            "refuse_deliveries",
            "claim_deliveries",
            "answered_deliveries",
            "typing_deliveries",
            "answering_conversations",
            "list_deliveries_of_all",
            "replay_deliveries_of_all",
            "claim_outbox",
            "sweep_deliveries",
            "sweep_forgotten",
            "drop_bodies",
            "crowded_users",
        ],
    ),
    "chat": ("the workers look for work", ["find_work", "find_unwritten"]),
    "groups": (
        "of one group, asked only behind the lock that shows the asker's own membership",
        [
            "list_members",
            "count_members",
            "count_admins",
            "find_member",
            "set_member_role",
            "drop_member",
            "is_member",
        ],
    ),
    "identity/entrance": ("what has expired goes", ["forget_challenges"]),
    "identity/oidc": (
        "by the secret of an attempt, or the provider's name for a person",
        ["use_attempt", "forget_attempts", "find_account"],
    ),
    "identity/passkeys": (
        "by the name of a key that only its owner's device has, or what was asked",
        ["use_challenge", "forget_challenges", "find_passkey"],
    ),
    "privacy": (
        "deletions that are open, and their proofs for administrators",
        ["open_deletions", "list_deletions", "note_report", "finish"],
    ),
    "vault": (
        "a rotation goes over all",
        ["find_wrapped_key", "wrapped_before", "oldest_master", "users_with_keys"],
    ),
}
"""By room: why, and which. A further statement about everybody is a decision, and is written down here."""


def tables_of_users() -> set[str]:
    found = set()
    for match in re.finditer(r"create (?:unlogged )?table (\w+) \((.*?)\n\);", SCHEMA, re.S):
        if re.search(r"^\s+user_id\s", match[2], re.M):
            found.add(match[1])
    return found


def statements() -> list[tuple[str, str, str]]:
    """(room, name, text without comments)."""
    found = []
    for path in sorted(ROOT.rglob("queries.sql")):
        room = str(path.parent.relative_to(ROOT))
        for part in re.split(r"^-- name: ", path.read_text(), flags=re.M)[1:]:
            name, _, text = part.partition("\n")
            found.append((room, name.strip("^$!<* "), re.sub(r"--.*", "", text)))
    return found


def unscoped() -> dict[str, list[str]]:
    tables = tables_of_users()
    found: dict[str, list[str]] = {}
    for room, name, text in statements():
        touched = set(re.findall(r"\b(?:from|join|into|update)\s+(\w+)", text)) & tables
        if touched and not OWN.search(text):
            found.setdefault(room, []).append(name)
    return found


def test_the_schema_is_read() -> None:
    assert {"agents", "conversations", "vault_items", "api_keys", "login_sessions"} <= tables_of_users()
    assert len(statements()) > 150


def test_every_statement_on_a_users_table_says_whose_or_why_not() -> None:
    known = {room: names for room, (_, names) in ABOUT_EVERYBODY.items()}
    assert unscoped() == known
