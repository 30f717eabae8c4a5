"""The kinds of channels that there are, and what seals their secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from ocmt.errors import SetupProblem
from ocmt.platform import sealing
from ocmt.platform.secrets import Secrets

if TYPE_CHECKING:
    from ocmt.channels.base import Channel
    from ocmt.platform.clock import Clock
    from ocmt.platform.http import HttpClient
    from ocmt.settings import Settings

KEY = "channels-key"
"""The name of the secret that seals what is kept of channels."""


class ChannelSeal:
    """A `Seal` with one key of the installation, which is made when it is first needed."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._key: bytes | None = None

    async def seal(self, user_id: UUID, plain: bytes, bound_to: bytes) -> bytes:
        """See Seal."""
        return sealing.seal(await self._opened(), plain, user_id.bytes + bound_to)

    async def unseal(self, user_id: UUID, sealed: bytes, bound_to: bytes) -> bytes:
        """See Seal."""
        try:
            return sealing.unseal(await self._opened(), sealed, user_id.bytes + bound_to)
        except sealing.Damaged:
            raise SetupProblem(
                f"The secrets of a channel do not open: the secret {KEY} is another one than they were "
                "sealed with. Put it back from your backup, or connect the channel anew."
            ) from None

    async def _opened(self) -> bytes:
        if self._key is None:
            self._key = await self._secrets.ensure(KEY, sealing.new_key)
        return self._key


def kinds_of_channels(settings: Settings, http: HttpClient, clock: Clock) -> Mapping[str, Channel]:
    """All of them, by name."""
    from ocmt.bootstrap.features import public_address
    from ocmt.channels.github import GitHub
    from ocmt.channels.signed import Signed
    from ocmt.channels.slack import Slack
    from ocmt.channels.telegram import Telegram

    kinds: list[Channel] = [
        Telegram(http.session, settings.telegram_url),
        Slack(http.session, settings.slack_url),
        GitHub(http.session, settings.github_url),
        Signed(http.session, clock.now, local=public_address(settings).local),
    ]
    return {kind.name: kind for kind in kinds}
