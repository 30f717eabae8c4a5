"""The drill: a running installation is backed up while people write, and comes back on an empty machine.

As an operator does it: `ocmt backup` as processes, then as another user in a folder that holds nothing.

Slow (two database servers are made and started): it is what a backup is for.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.migrations import migrate
from ocmt.platform.objects import LocalObjects
from ocmt.platform.secrets import LocalSecrets
from ocmt.settings import load_settings
from tests.conftest import FAST

from .conftest import KEY, PASSPHRASE, Installation, Rooms

pytestmark = pytest.mark.anyio

NOBODY = 65534
# Reads what root reads (this interpreter may be in root's home), and writes no more than anybody.
AS_ANYBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)

LOOK_AROUND = """
import asyncio, json, sys
from pathlib import Path
from ocmt.chat.service import Chat
from ocmt.cli.database import open_installation
from ocmt.platform.clock import SystemClock
from ocmt.platform.objects import LocalObjects
from ocmt.platform.secrets import LocalSecrets
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.service import ModelKeys, Vault

async def look(data):
    found = {}
    async with open_installation(data) as opened:
        objects = LocalObjects(data / "objects")
        chat = Chat(opened.database, SystemClock(), objects)
        secrets, clock = LocalSecrets(data / "secrets"), SystemClock()
        vault = Vault(opened.database, secrets, opened.identity.audit, clock)
        groups = GroupKeys(opened.database, vault.master, opened.identity.audit, clock)
        keys = ModelKeys(vault, groups, opened.database, clock)
        for user in await opened.identity.users(limit=500):
            texts = []
            for conversation in await chat.conversations(user.id):
                texts += [turn.text for turn in (await chat.history(user.id, conversation.id)).turns]
            found[user.email] = {
                "texts": texts,
                "key": getattr(await keys.find(user.id, "anthropic_api_key"), "value", None),
                "objects": {
                    key.rpartition("/")[2]: (await objects.get(key)).decode()
                    for key in await objects.list(f"users/{user.id}/")
                },
            }
    print(json.dumps(found))

asyncio.run(look(Path(sys.argv[1])))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's: another user must get through."""
    folder = Path(tempfile.mkdtemp(prefix="ocmt-drill-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


async def run(*command: str, prefix: Sequence[str] = ()) -> str:
    """What it printed. Fails where it complains of anything."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OCMT_", "DATABASE_URL"))
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [*prefix, sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=kept | {"OCMT_CACHE_DIR": str(load_settings().cache_dir)},
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_everything_is_back_on_an_empty_machine_for_another_user(
    folder: Path, postgres_binaries: Path
) -> None:
    data, file, secret = folder / "data", folder / "all.ocmt", folder / "passphrase"
    data.mkdir(mode=0o711)
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    server = EmbeddedPostgres(
        data / "postgres", binaries=postgres_binaries, log=structlog.get_logger("tests"), settings=FAST
    )
    dsn = await server.start()
    try:
        await migrate(dsn)
        home = Installation(dsn, LocalObjects(data / "objects"), LocalSecrets(data / "secrets"))
        rooms = await Rooms.open(home)
        anna = await rooms.move_in("anna@example.org", "Remember the milk")
        await home.objects.put(f"users/{anna}/workspace/notes.md", b"milk")
        stop = asyncio.Event()

        async def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                user = await rooms.move_in(f"{number}@example.org", "hello")
                await home.objects.put(f"users/{user}/workspace/notes.md", b"hello")

        writing = asyncio.create_task(write())
        options = ("--passphrase-file", str(secret), "--json")
        made = json.loads(
            await run("-m", "ocmt", "backup", "create", str(file), *options, "--data", str(data))
        )
        stop.set()
        await writing
        await rooms.database.close()
        verified = json.loads(await run("-m", "ocmt", "backup", "verify", str(file), *options))
        assert verified == made
        assert made["objects"] >= 1
    finally:
        await server.stop()
    shutil.rmtree(data)

    empty = folder / "empty"
    empty.mkdir(mode=0o700)
    somebody: tuple[str, ...] = ()
    if os.geteuid() == 0:
        somebody = AS_ANYBODY
        for path in (empty, file, secret):
            shutil.chown(path, NOBODY, NOBODY)
    await run("-m", "ocmt", "backup", "restore", str(file), *options, "--data", str(empty), prefix=somebody)
    found = json.loads(await run("-c", LOOK_AROUND, str(empty), prefix=somebody))
    assert found.pop("anna@example.org") == {
        "texts": ["Remember the milk"],
        "key": KEY,
        "objects": {"notes.md": "milk"},
    }
    assert {tuple(other["texts"]) for other in found.values()} <= {("hello",), ()}
    assert {path.stat().st_uid for path in empty.rglob("*")} == {NOBODY if somebody else os.getuid()}
