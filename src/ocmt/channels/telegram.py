"""Telegram: a bot of the user's own, by webhook. https://core.telegram.org/bots/api.

A bot's token is part of every address of that API. So no error that leaves this file names an address or
keeps the HTTP client's own error, which does.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ocmt.channels.base import (
    Accepted,
    Attachment,
    Connected,
    Endpoint,
    Ignored,
    Incoming,
    Message,
    Received,
    SendFailed,
)
from ocmt.channels.gathering import ALBUM
from ocmt.channels.model import short_id
from ocmt.channels.pings import for_telegram
from ocmt.channels.quoting import context_of
from ocmt.channels.splitting import in_pieces
from ocmt.channels.telegram_message import Content, content, number, replied
from ocmt.channels.wire import ask, object_of, part, removing, setting_up, words
from ocmt.chat.controls import asks_to_stop, command_in, may_be_urgent
from ocmt.errors import InvalidInput, TooLarge, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import aiohttp

PIECE = 4096
"""UTF-16 code units of one message: https://core.telegram.org/bots/api#sendmessage."""
NEARLY_FULL = 3_800
"""UTF-16 code units from which on a text may be the first piece of a longer one."""
PASTE_SECONDS = 1.2
ALBUM_SECONDS = 1.0
FORWARD_SECONDS = 0.5
"""In which the next piece, picture, or forwarded message may come."""
CALL_SECONDS = 20.0
TYPING_SECONDS = 5.0
FILE_SECONDS = 60.0
_LARGEST_ANSWER = 1024 * 1024
_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{20,100}")


class Telegram:
    """The channel `telegram`."""

    name = "telegram"
    label = "Telegram"
    fields: Mapping[str, str] = {"bot_token": "The bot's token, as @BotFather gave it"}
    required = frozenset(fields)
    before: Sequence[str] = (
        "Open https://t.me/BotFather in Telegram and send it /newbot.",
        "Choose a name for the bot, and a username that ends in bot.",
        "Copy the token that BotFather answers with. It looks like 123456:ABC-DEF….",
    )
    after: Sequence[str] = (
        "Nothing more is to be done at Telegram: the webhook is registered. Write to the bot; it answers "
        "with the code that lets you in.",
        "For a group: the bot answers what mentions its @name, replies to it, or is a command for it "
        "(/ask@its_name). Telegram's privacy mode, which is on at first, may keep mentions from it: send "
        "/setprivacy to BotFather, choose Disable, and add the bot to the group anew.",
    )
    answers = True
    pairs = True

    def __init__(self, session: Callable[[], aiohttp.ClientSession], base_url: str) -> None:
        """`base_url`: without a path, for files are beside the methods."""
        self._session = session
        self._url = base_url.rstrip("/")

    def receive(self, request: Incoming, endpoint: Endpoint, now: datetime) -> Received:
        """See Channel. Telegram signs nothing: it repeats the secret that `connect` told it."""
        given = request.headers.get("x-telegram-bot-api-secret-token", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, endpoint.secrets["webhook_secret"].encode()):
            raise Unauthenticated("The secret of this webhook is missing or wrong.")
        update = object_of(request.body)
        update_id = number(update, "update_id")
        if update_id is None:
            raise InvalidInput("This is not an update of Telegram's.")
        if "message" not in update:
            return Ignored()
        message = part(update, "message")
        thread = _thread(message)
        if thread is None:
            raise InvalidInput("This message is in no chat.")
        together, wait = _together(message)
        urgent = may_be_urgent(words(message, "text"))
        return Accepted(str(update_id), thread, urgent, None if urgent else together, wait)

    def read(self, body: bytes, endpoint: Endpoint) -> Message | None:
        """See Channel. In groups only what is said to the bot: by mention, reply or `/command@bot`."""
        return self.read_together([body], endpoint)

    def read_together(self, bodies: Sequence[bytes], endpoint: Endpoint) -> Message | None:
        """See Gathers."""
        messages = [part(object_of(body), "message") for body in bodies]
        first = messages[0]
        chat, sender = part(first, "chat"), part(first, "from")
        thread, sender_id = _thread(first), number(sender, "id")
        if thread is None or sender_id is None or sender.get("is_bot") is not False:
            return None
        found = [content(one) for one in messages]
        private = chat.get("type") == "private"
        if not private and not _addressed(messages, found, chat, endpoint.settings):
            return None
        text = _joined(messages, found)
        context = [line for one in found for line in one.context]
        attachments = [file for one in found for file in one.attachments]
        if command_in(text) is None and not asks_to_stop(text):
            behind = [replied(one) for one in messages]
            context += [line for one in behind for line in one.context]
            attachments += [file for one in behind for file in one.attachments]
        unreadable = next((one.unreadable for one in found if one.unreadable), "")
        if not text.strip() and not attachments and not context and not unreadable:
            return None
        name = " ".join(filter(None, (words(sender, key) for key in ("first_name", "last_name"))))
        name = name or words(sender, "username") or str(sender_id)
        reply: dict[str, Any] = {"chat_id": chat["id"]}
        if _in_topic(first):
            reply["message_thread_id"] = first["message_thread_id"]
        if not private and (message_id := number(first, "message_id")) is not None:
            reply["message_id"] = message_id
        if username := words(sender, "username"):
            reply["calls"] = username
        return Message(
            sender=str(sender_id),
            sender_name=name,
            text=text,
            thread=thread,
            title=f"Telegram: {name if private else words(chat, 'title') or thread}",
            attachments=attachments,
            reply=reply,
            private=private,
            context=context_of(context),
            unreadable=unreadable,
        )

    async def connect(self, fields: Mapping[str, str]) -> Connected:
        """See Channel. A secret that there is stays."""
        token = fields.get("bot_token", "").strip()
        if not _TOKEN.fullmatch(token):
            raise InvalidInput("This is not a bot's token. @BotFather shows it: digits, a colon, letters.")
        secret = fields.get("webhook_secret") or secrets.token_urlsafe(32)
        with setting_up():
            bot = await self._call(token, "getMe", {})
        bot_id, username = number(bot, "id"), words(bot, "username")
        if bot_id is None or not username:
            raise Unavailable("Telegram gave an answer that we do not understand.")
        kept = {"bot_token": token, "webhook_secret": secret}
        return Connected(f"@{username}", kept, {"bot_id": bot_id, "username": username})

    async def register(self, endpoint: Endpoint, url: str) -> None:
        """See Channel: https://core.telegram.org/bots/api#setwebhook."""
        webhook = {
            "url": url,
            "secret_token": endpoint.secrets["webhook_secret"],
            "allowed_updates": ["message"],
            "drop_pending_updates": False,
        }
        with setting_up():
            await self._call(endpoint.secrets["bot_token"], "setWebhook", webhook)

    async def disconnect(self, endpoint: Endpoint) -> None:
        """See Channel. A webhook that another connection of this bot has set since then stays."""
        token = endpoint.secrets["bot_token"]
        # Refused: the bot is gone or has another token, and with that the webhook is not ours any more.
        with removing():
            known = words(await self._call(token, "getWebhookInfo", {}), "url")
            if str(endpoint.id) in known:
                await self._call(token, "deleteWebhook", {"drop_pending_updates": False})

    def split(self, text: str) -> list[str]:
        """See Channel."""
        return in_pieces(text, PIECE, lambda piece: utf16_units(piece) + piece.count("@"))

    async def send(self, endpoint: Endpoint, reply: Mapping[str, Any], text: str, *, key: str) -> None:
        """See Channel. Plain text; Telegram knows no duplicates, so `key` is of no use.

        A group that has become a supergroup meanwhile has another id, where its answers go then. What is
        written there is another conversation from now on.
        """
        said, entities = for_telegram(text, str(reply.get("calls") or ""))
        token, body = endpoint.secrets["bot_token"], {**_where(reply), "text": said}
        if entities:
            body["entities"] = entities
        answered: dict[str, Any] = {}
        if "message_id" in reply:
            known = {"message_id": reply["message_id"], "allow_sending_without_reply": True}
            answered = {"reply_parameters": known}
        try:
            await self._call(token, "sendMessage", {**body, **answered})
        except _Moved as moved:
            # There messages are counted anew: the number may be another one's.
            await self._call(token, "sendMessage", {**body, "chat_id": moved.chat_id})

    async def typing(self, endpoint: Endpoint, reply: Mapping[str, Any]) -> None:
        """See Channel. It shows for five seconds: https://core.telegram.org/bots/api#sendchataction."""
        body = {**_where(reply), "action": "typing"}
        await self._call(endpoint.secrets["bot_token"], "sendChatAction", body, seconds=TYPING_SECONDS)

    async def fetch(self, endpoint: Endpoint, attachment: Attachment, *, most: int) -> bytes:
        """See Channel. Telegram itself gives bots 20 MB at most: https://core.telegram.org/bots/api#getfile."""
        token = endpoint.secrets["bot_token"]
        too_large = TooLarge(f"The file is larger than {most} bytes.")
        if attachment.size is not None and attachment.size > most:
            raise too_large
        path = words(await self._call(token, "getFile", {"file_id": attachment.reference}), "file_path")
        if not path or ".." in path.split("/"):
            raise SendFailed("Telegram does not have this file any more.", permanent=True)
        url = f"{self._url}/file/bot{token}/{quote(path.lstrip('/'), safe='/')}"
        reply = await ask(self._session, "GET", url, seconds=FILE_SECONDS, most=most)
        if reply.problem:
            raise SendFailed("Telegram does not give the file.", detail=reply.problem)
        if reply.status != 200:
            permanent = 300 <= reply.status < 500 and reply.status != 429
            raise SendFailed(
                "Telegram does not give the file.", permanent=permanent, detail=f"file: {reply.status}"
            )
        if reply.content is None:
            raise too_large
        return reply.content

    async def _call(
        self, token: str, method: str, body: Mapping[str, Any], *, seconds: float | None = None
    ) -> Mapping[str, Any]:
        """The `result` of a method where that is an object. Raises: SendFailed, TooLarge.

        https://core.telegram.org/bots/api#making-requests, …#responseparameters.
        """
        url = f"{self._url}/bot{token}/{method}"
        reply = await ask(
            self._session, "POST", url, body=body, seconds=seconds or CALL_SECONDS, most=_LARGEST_ANSWER
        )
        if reply.problem:
            detail = f"{method}: {reply.problem}"
            raise SendFailed("Telegram does not answer.", uncertain=reply.uncertain, detail=detail)
        status, answer = reply.status, object_of(reply.content or b"")
        if status == 200 and answer.get("ok") is True:
            return part(answer, "result")
        said = words(answer, "description").replace(token, "…")[:300]
        detail = f"{method}: {status} {said}"
        if method == "getFile" and "file is too big" in said:
            raise TooLarge("Telegram does not give bots a file as large as this.", detail=detail)
        parameters = part(answer, "parameters")
        if status == 429:
            after = number(parameters, "retry_after")
            raise SendFailed("Telegram wants us to wait.", detail=detail, retry_after=after)
        moved_to = number(parameters, "migrate_to_chat_id")
        if moved_to is not None:
            raise _Moved(moved_to, detail)
        if status in (401, 404):
            said = "I do not know this bot. Its token is wrong or was revoked."
        if 300 <= status < 500:
            raise SendFailed(f"Telegram says: {said or status}", permanent=True, detail=detail)
        # Behind a 200 without an `ok` is something that is not Telegram; it may have passed it on.
        raise SendFailed(
            "Telegram has a problem.", uncertain=status < 300 or status in (502, 504), detail=detail
        )


class _Moved(SendFailed):
    """The group is a supergroup now: https://core.telegram.org/bots/api#responseparameters."""

    def __init__(self, chat_id: int, detail: str) -> None:
        super().__init__("This group has another id now.", permanent=True, detail=detail)
        self.chat_id = chat_id


def utf16_units(text: str) -> int:
    """How long Telegram finds it: https://core.telegram.org/api/entities#entity-length."""
    return len(text) + sum(letter > "\uffff" for letter in text)


def _together(message: Mapping[str, Any]) -> tuple[str | None, float]:
    """What it may be one message with, and the seconds in which that may come.

    Clients cut a text at 4,096 units and send an album, or several forwarded messages, as one message each.
    """
    if group := words(message, "media_group_id"):
        return short_id(ALBUM + group), ALBUM_SECONDS
    sender = number(part(message, "from"), "id")
    if part(message, "chat").get("type") != "private" or sender is None:
        return None, 0.0
    text = words(message, "text")
    if text[:1] in ("/", "\uff0f"):
        return None, 0.0
    if len(text) > NEARLY_FULL // 2 and utf16_units(text) >= NEARLY_FULL:
        return f"said:{sender}", PASTE_SECONDS
    return f"said:{sender}", FORWARD_SECONDS if "forward_origin" in message else 0.0


def _addressed(
    messages: Sequence[Mapping[str, Any]],
    found: Sequence[Content],
    chat: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> bool:
    """Whether one of them speaks to the bot, in a group; the bot's name is cut out of their texts."""
    if chat.get("type") not in ("group", "supergroup"):
        return False
    addressed = False
    for message, one in zip(messages, found, strict=True):
        # Offsets are those of the text that came; a forwarded one mentions nobody.
        spoken = None if "forward_origin" in message else _to_the_bot(message, one.text, settings)
        if spoken is not None:
            addressed, one.text = True, spoken
    return addressed


def _joined(messages: Sequence[Mapping[str, Any]], found: Sequence[Content]) -> str:
    """The texts as one: where a client has cut one in the middle, without anything in between."""
    text = ""
    for number_of_it, one in enumerate(found):
        cut = number_of_it > 0 and utf16_units(words(messages[number_of_it - 1], "text")) >= PIECE
        text += ("" if cut or not text or not one.text else "\n") + one.text
    return text


def _to_the_bot(message: Mapping[str, Any], text: str, settings: Mapping[str, Any]) -> str | None:
    """The text without the bot's name where it speaks to the bot, else None.

    Offsets count UTF-16 code units: https://core.telegram.org/bots/api#messageentity.
    """
    name, bot_id = f"@{settings.get('username')}".lower(), number(settings, "bot_id")
    replied = part(message, "reply_to_message")
    # In a topic, every message that is no reply is one to the message that opened it.
    meant = "forum_topic_created" not in replied and _is(part(replied, "from"), bot_id)
    units, cuts = text.encode("utf-16-le", "surrogatepass"), dict[int, int]()
    entities = message.get("entities" if words(message, "text") else "caption_entities")
    for entity in entities if isinstance(entities, list) else ():
        if not isinstance(entity, dict):
            continue
        start, length = number(entity, "offset") or 0, number(entity, "length") or 0
        end = start + length
        if start < 0 or length <= 0 or 2 * end > len(units):
            continue
        said = units[2 * start : 2 * end].decode("utf-16-le", "replace").lower()
        kind = entity.get("type")
        if (kind == "mention" and said == name) or (
            kind == "text_mention" and _is(part(entity, "user"), bot_id)
        ):
            cuts[start] = end
        elif kind == "bot_command" and said.endswith(name) and said != name:
            cuts[end - len(name)] = end
        elif kind == "bot_command" and start == 0 and "@" in said:
            return None  # for another bot, also in a reply to this one
    for start, end in sorted(cuts.items(), reverse=True):
        units = units[: 2 * start] + units[2 * end :]
    return units.decode("utf-16-le", "replace").strip() if meant or cuts else None


def _is(user: Mapping[str, Any], user_id: int | None) -> bool:
    return user_id is not None and number(user, "id") == user_id


def _in_topic(message: Mapping[str, Any]) -> bool:
    """Whether its message_thread_id is a topic's; in other groups it is only of a chain of replies."""
    return message.get("is_topic_message") is True and number(message, "message_thread_id") is not None


def _thread(message: Mapping[str, Any]) -> str | None:
    chat_id = number(part(message, "chat"), "id")
    topic = f":{message['message_thread_id']}" if _in_topic(message) else ""
    return None if chat_id is None else f"{chat_id}{topic}"


def _where(reply: Mapping[str, Any]) -> dict[str, Any]:
    return {name: reply[name] for name in ("chat_id", "message_thread_id") if name in reply}
