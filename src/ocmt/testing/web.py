"""What the doubles of other people's HTTP services share: a real server on a port of this machine."""

from __future__ import annotations

from typing import Self

from aiohttp import web


class WebDouble:
    """`async with` it; `url` is where it answers meanwhile."""

    url = ""
    path = ""
    """Below which its service is, as a part of `url`."""

    def _app(self) -> web.Application:
        raise NotImplementedError  # each double says what it answers

    async def __aenter__(self) -> Self:
        # Without cancellation a double would not notice that its client is gone.
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{self.path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
