"""The secret store as a port, and its local adapter: sealed files under one master key.

Each secret is one file, AES-256-GCM with the secret's name as additional data, so that a sealed file copied
over another one does not open. The master key is the only thing here that has to be kept apart from a backup.
"""

from __future__ import annotations

import os
import re
import secrets as randomness
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ocmt.errors import InvalidInput, SetupProblem
from ocmt.platform.work import SECRETS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32
_SUFFIX = ".sealed"


class Secrets(Protocol):
    """Small secrets by name: letters, digits, `.`, `_`, `-`, at most 128. Raises InvalidInput for others."""

    async def get(self, name: str) -> bytes | None:
        """The secret, or None. Raises SetupProblem where it cannot be opened."""

    async def put(self, name: str, value: bytes) -> None:
        """Keep it, over an older one."""

    async def delete(self, name: str) -> None:
        """Deleting what is gone succeeds."""

    async def ensure(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The secret; made and kept if there is none. Whoever asks at the same time gets the same one."""

    async def names(self) -> list[str]:
        """Of all secrets, sorted."""


def checked_name(name: str) -> str:
    """The name itself. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput("This is not a name that a secret can have.", detail=f"secret name {name!r}")
    return name


class LocalSecrets:
    """Secrets in a folder of mode 0700; `master.key` in it, mode 0600, is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cipher: AESGCM | None = None

    async def get(self, name: str) -> bytes | None:
        """See Secrets."""
        return await SECRETS.run(self._get, checked_name(name))

    async def put(self, name: str, value: bytes) -> None:
        """See Secrets."""
        await SECRETS.run(lambda: self._put(checked_name(name), value, replace=True))

    async def delete(self, name: str) -> None:
        """See Secrets."""
        await SECRETS.run(lambda: self._path(checked_name(name)).unlink(missing_ok=True))

    async def ensure(self, name: str, make: Callable[[], bytes]) -> bytes:
        """See Secrets."""
        return await SECRETS.run(self._ensure, checked_name(name), make)

    async def names(self) -> list[str]:
        """See Secrets."""
        return await SECRETS.run(self._names)

    def _names(self) -> list[str]:
        # Not by `glob`, to which a folder that we may not read is an empty one.
        try:
            found = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        # What begins with a dot is the unfinished file of somebody who writes just now.
        return sorted(
            name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX) and name[0] != "."
        )

    def _ensure(self, name: str, make: Callable[[], bytes]) -> bytes:
        found = self._get(name)
        if found is None:
            self._put(name, make(), replace=False)
            found = self._get(name)
        if found is None:
            raise SetupProblem(f"The secret {name} in {self._folder} was deleted while it was being made.")
        return found

    def _get(self, name: str) -> bytes | None:
        try:
            sealed = self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._opened().decrypt(nonce, ciphertext, sealed[:1] + _bound_to(name))
        except (InvalidTag, ValueError):
            raise SetupProblem(
                f"The secret {self._path(name)} cannot be opened: it was changed, or it was sealed with "
                "another master key."
            ) from None

    def _put(self, name: str, value: bytes, *, replace: bool) -> None:
        nonce = randomness.token_bytes(_NONCE_BYTES)
        sealed = _VERSION + nonce + self._opened().encrypt(nonce, value, _VERSION + _bound_to(name))
        _write(self._path(name), sealed, replace=replace)

    def _path(self, name: str) -> Path:
        return self._folder / (name + _SUFFIX)

    def _opened(self) -> AESGCM:
        if self._cipher is None:
            self._cipher = AESGCM(self._master_key())
        return self._cipher

    def _master_key(self) -> bytes:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        path = self._folder / "master.key"
        if not path.exists():
            if any(self._folder.glob("*" + _SUFFIX)):
                raise SetupProblem(f"The master key {path} is missing: put it back from your backup.")
            _write(path, randomness.token_bytes(_KEY_BYTES), replace=False)
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise SetupProblem(
                f"The master key {path} is open to other users (mode {mode:04o}): chmod 600 it, and "
                "think about who may have read it."
            )
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise SetupProblem(f"The master key {path} is damaged: put it back from your backup.")
        return key


def _bound_to(name: str) -> bytes:
    return b"ocmt secret " + name.encode()


def _write(path: Path, data: bytes, *, replace: bool) -> None:
    """A whole file with mode 0600 or none; without `replace`, one that is there already stays."""
    unfinished = path.with_name(f".{path.name}.{randomness.token_hex(4)}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            unfinished.rename(path)
        else:
            try:
                path.hardlink_to(unfinished)
            except FileExistsError:
                return
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
