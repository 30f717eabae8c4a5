"""Docker's API (and podman's, which is the same) as far as agents need it: every call with a time limit,
every fault one of our errors. The only place that knows aiodocker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ocmt.errors import Conflict, NotFound, OcmtError, SetupProblem, Unavailable

if TYPE_CHECKING:
    from aiodocker import Docker, DockerError

CALL_TIMEOUT = 10.0
"""Seconds for a call; on a quiet machine none takes a second."""
RETRY_END = 0.5
"""Seconds between two attempts to have a container's end confirmed."""
KILLED = 137
_NO_CONNECTION = 900
"""aiodocker's own status for a daemon that cannot be reached."""


class Engine:
    """One daemon, found by its address. Belongs to the event loop of its first call."""

    def __init__(self, url: str) -> None:
        """`url`: `unix:///var/run/docker.sock`, or podman's socket. The daemon must be of this machine."""
        self.url = url
        self._docker: Docker | None = None

    async def close(self) -> None:
        """Close the connections to it."""
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    async def about(self) -> dict[str, Any]:
        """What Docker says of itself (`GET /info`). Raises: Unavailable, SetupProblem."""
        async with self._asking("tell about itself") as docker:
            return dict(await docker.system.info())

    async def has_image(self, image: str) -> bool:
        """Whether that image is there. Raises: Unavailable, SetupProblem."""
        try:
            async with self._asking("look for an image") as docker:
                await docker.images.inspect(image)
        except NotFound:
            return False
        return True

    async def create(self, name: str, description: dict[str, Any]) -> str:
        """A new container's id. Raises: NotFound (the image), Conflict (the name), Unavailable, OcmtError."""
        async with self._asking("make a container") as docker:
            return (await docker.containers.create(description, name=name)).id

    async def start(self, container: str) -> None:
        """Raises: Unavailable, OcmtError where it cannot be started."""
        async with self._asking("start a container") as docker:
            await docker.containers.container(container).start()

    async def pause(self, container: str) -> None:
        """Freeze it; a frozen one stays so. Raises: NotFound, Conflict (it does not run), Unavailable."""
        try:
            async with self._asking("pause a container") as docker:
                await docker.containers.container(container).pause()
        except (Conflict, Unavailable) as error:  # podman says so with status 500
            if "already paused" not in (error.detail or ""):
                raise

    async def unpause(self, container: str) -> None:
        """Let it go on. Succeeds where there is nothing to let go on. Raises: Unavailable."""
        try:
            async with self._asking("let a container go on") as docker:
                await docker.containers.container(container).unpause()
        except (NotFound, Conflict):
            return
        except Unavailable as error:
            if "is not paused" not in (error.detail or ""):  # 20.10 says so with status 500
                raise

    async def end(self, container: str) -> int:
        """Kill it, wait until nothing of it runs, and remove it; its exit code. Raises: Unavailable.

        Succeeds where it is gone already, with the exit code of a killed one.
        """
        try:
            async with self._asking("end a container") as docker:
                found = docker.containers.container(container)
                try:
                    await found.kill()
                except docker_error() as error:
                    if error.status not in (404, 409, 500):  # gone, or not running in either's words
                        raise
                code = int((await found.wait())["StatusCode"])
        except NotFound:
            return KILLED
        await self.remove(container)
        return code

    async def wait(self, container: str, *, limit: float) -> int:
        """Its exit code once it has ended by itself. Raises: Unavailable after `limit` seconds, NotFound."""
        async with self._asking("wait for a container", limit) as docker:
            return int((await docker.containers.container(container).wait())["StatusCode"])

    async def remove(self, container: str) -> None:
        """Kill it if it runs, and forget it. Succeeds where there is none. Raises: Unavailable."""
        try:
            async with self._asking("remove a container") as docker:
                await docker.containers.container(container).delete(force=True, v=True)
        except (NotFound, Conflict):  # gone, or on its way out
            return

    async def last_words(self, container: str) -> str:
        """What it has written by itself, newest at the end. Raises: NotFound, Unavailable."""
        async with self._asking("read a container's output") as docker:
            found = docker.containers.container(container)
            return "".join(await found.log(stdout=True, stderr=True, tail=50))

    async def labelled(self, label: str) -> list[str]:
        """The ids of all containers with that label, running or not. Raises: Unavailable."""
        async with self._asking("list containers") as docker:
            wanted = f'{{"label": ["{label}"]}}'
            return [found.id for found in await docker.containers.list(all="true", filters=wanted)]

    @asynccontextmanager
    async def _asking(self, what: str, limit: float | None = None) -> AsyncIterator[Docker]:
        import aiohttp

        limit = CALL_TIMEOUT if limit is None else limit
        try:
            async with asyncio.timeout(limit):
                yield self._client()
        except TimeoutError as error:
            raise Unavailable(f"Docker took too long to {what}.", detail=f"{limit:.0f} s") from error
        except docker_error() as error:
            raise self._as_ours(error, what) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    def _client(self) -> Docker:
        if self._docker is None:
            import aiodocker

            try:
                self._docker = aiodocker.Docker(self.url)
            except ValueError as error:
                raise SetupProblem(
                    f"The address of Docker, {self.url}, is not one: it looks like unix:///var/run/docker.sock."
                ) from error
        return self._docker

    def _as_ours(self, error: DockerError, what: str) -> OcmtError:
        cause = error.__context__
        if error.status == _NO_CONNECTION:
            return self._unreachable(cause if isinstance(cause, Exception) else error)
        words, detail = f"Docker could not {what}.", str(error)
        if error.status == 404:
            return NotFound(words, detail=detail)
        if error.status in (304, 409):
            return Conflict(words, detail=detail)
        if error.status >= 500:
            return Unavailable(words, detail=detail)
        return OcmtError(words, detail=detail)

    def _unreachable(self, error: Exception) -> OcmtError:
        if isinstance(getattr(error, "os_error", error), PermissionError):
            return SetupProblem(
                f"Docker at {self.url} may not be used by this user: add it to the group of that socket "
                "(`sudo usermod -aG docker USER`), and sign in again.",
                detail=repr(error),
            )
        return Unavailable(
            f"Docker does not answer at {self.url}: start it (`sudo systemctl start docker`), or name "
            "another with OCMT_DOCKER_URL.",
            detail=repr(error),
        )


class Container:
    """The body of an agent that lives in a container: what runs in it ends with it."""

    def __init__(self, engine: Engine, number: str, pid: int) -> None:
        """`number` is Docker's id of it, `pid` the supervisor's, 0 where it is not visible from here."""
        self.number = number
        self.pid = pid
        self._engine = engine
        self._doomed = asyncio.Event()
        self._given_up = asyncio.Event()

    def greeted(self) -> None:
        """Nothing to note: the container is known by its id."""

    def kill(self) -> None:
        """Also the answer to the end of the control channel, so that every end is noticed."""
        self._doomed.set()

    def give_up(self) -> None:
        """Ask Docker no longer: the platform ends, and its next start removes what is left."""
        self._given_up.set()
        self._doomed.set()

    async def ended(self) -> int:
        """See Body. Asks Docker again and again where it does not answer."""
        await self._doomed.wait()
        while not self._given_up.is_set():
            with contextlib.suppress(OcmtError):
                return await self._engine.end(self.number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._given_up.wait(), RETRY_END)
        return KILLED


def docker_error() -> type[DockerError]:
    """aiodocker's error, imported with it when it is first needed."""
    import aiodocker

    return aiodocker.DockerError
