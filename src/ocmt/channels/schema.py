"""What becomes of each field, kind and event that a vendor documents.

The tables of docs/reference/channels.md are made from it (`scripts/channel_tables.py`), and the tests walk
it, so the page and the program cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class How(StrEnum):
    """What a channel does with something."""

    READ = "read"
    """The agent gets its text or its file."""
    NAMED = "named"
    """The agent reads a line or a marked block about it."""
    REFUSED = "refused"
    """It cannot be read: where nothing else is in the message, its sender is told in private."""
    USED = "used"
    """It says who, where, when, or to whom; the agent does not see it as such."""
    IGNORED = "ignored"
    """Nobody said it to the agent: an event of the chat, or how something is displayed."""


Table = Mapping[str, tuple[How, str]]
"""By the vendor's name: what is done, and a remark for the page (of what is refused: what it is, for
people)."""

_U, _I = How.USED, How.IGNORED
_SERVICE = "service message of the chat"
_DISPLAY = "display"

TELEGRAM_VERSION = "Bot API types of July 2026 (`@grammyjs/types` 5.0.0)"
TELEGRAM: Table = {
    # Who, where, when
    "message_id": (_U, "an answer in a group replies to it"),
    "message_thread_id": (_U, "a topic is a conversation of its own"),
    "is_topic_message": (_U, "as above"),
    "direct_messages_topic": (_I, "messages to a channel are not for the bot"),
    "from": (_U, "the sender, whom the owner lets in; bots are not heard"),
    "sender_chat": (_I, "who writes as a chat is not heard"),
    "sender_tag": (_I, _DISPLAY),
    "sender_boost_count": (_I, _DISPLAY),
    "sender_business_bot": (_I, "business accounts are not connected"),
    "business_connection_id": (_I, "business accounts are not connected"),
    "guest_query_id": (_I, "guest queries are not asked for"),
    "guest_bot_caller_user": (_I, "guest queries are not asked for"),
    "guest_bot_caller_chat": (_I, "guest queries are not asked for"),
    "receiver_user": (_I, "ephemeral messages are not asked for"),
    "ephemeral_message_id": (_I, "ephemeral messages are not asked for"),
    "date": (_I, "the time of arrival counts"),
    "edit_date": (_I, "edits are not asked for: send a new message"),
    "chat": (_U, "the conversation"),
    "via_bot": (_I, _DISPLAY),
    "author_signature": (_I, _DISPLAY),
    "media_group_id": (_U, "an album is one message"),
    "is_automatic_forward": (_I, _DISPLAY),
    "is_from_offline": (_I, _DISPLAY),
    "is_paid_post": (_I, _DISPLAY),
    "paid_star_count": (_I, _DISPLAY),
    "has_protected_content": (_I, _DISPLAY),
    "has_media_spoiler": (_I, _DISPLAY),
    "show_caption_above_media": (_I, _DISPLAY),
    "link_preview_options": (_I, _DISPLAY),
    "effect_id": (_I, _DISPLAY),
    "reply_markup": (_I, "buttons"),
    "suggested_post_info": (_I, "messages to a channel are not for the bot"),
    # Text
    "text": (How.READ, "the sender's own words"),
    "entities": (_U, "mentions and commands of the bot are found by them"),
    "caption": (How.READ, "the sender's own words"),
    "caption_entities": (_U, "as `entities`"),
    "rich_message": (How.READ, "the text of its blocks; files within it are named"),
    # What stands beside it
    "reply_to_message": (How.NAMED, "text or caption as a quote, cut after 4,000 characters, and its files"),
    "quote": (How.NAMED, "the chosen part, instead of the whole message"),
    "external_reply": (How.NAMED, "where it is from and its kind, with its files"),
    "reply_to_story": (How.NAMED, "a line"),
    "reply_to_checklist_task_id": (How.NAMED, "a line"),
    "reply_to_poll_option_id": (How.NAMED, "a line"),
    "forward_origin": (How.NAMED, "the message is marked as forwarded, with its origin"),
    # Files
    "photo": (How.READ, "the largest size, as a picture"),
    "live_photo": (How.READ, "its picture and its video"),
    "document": (How.READ, "file"),
    "animation": (How.READ, "file, once, although `document` repeats it"),
    "audio": (How.READ, "file"),
    "voice": (How.READ, "file"),
    "video": (How.READ, "file"),
    "video_note": (How.READ, "file"),
    "sticker": (How.NAMED, "its emoji; a still one as a picture, too"),
    # A line of text
    "contact": (How.NAMED, "name and number"),
    "dice": (How.NAMED, "emoji and value"),
    "location": (How.NAMED, "latitude and longitude"),
    "venue": (How.NAMED, "name, address, and place"),
    "poll": (How.NAMED, "question and options"),
    "checklist": (How.NAMED, "title and tasks"),
    "game": (How.NAMED, "title and description"),
    "invoice": (How.NAMED, "title and description"),
    # What a bot cannot read
    "story": (How.REFUSED, "a story"),
    "paid_media": (How.REFUSED, "paid media"),
    "gift": (How.REFUSED, "a gift"),
    "unique_gift": (How.REFUSED, "a gift"),
    "gift_upgrade_sent": (How.REFUSED, "a gift"),
    "giveaway": (How.REFUSED, "a giveaway"),
    "giveaway_winners": (How.REFUSED, "a giveaway"),
    "passport_data": (How.REFUSED, "Telegram Passport data"),
    "web_app_data": (How.REFUSED, "data of a web app"),
    "users_shared": (How.REFUSED, "shared users"),
    "chat_shared": (How.REFUSED, "a shared chat"),
    "successful_payment": (How.REFUSED, "a payment"),
    "refunded_payment": (How.REFUSED, "a payment"),
    # What nobody said
    **dict.fromkeys((
        "checklist_tasks_done", "checklist_tasks_added", "community_chat_added", "community_chat_removed",
        "community_chat_joined", "suggested_post_approved", "suggested_post_approval_failed",
        "suggested_post_declined", "suggested_post_paid", "suggested_post_refunded", "chat_owner_left",
        "chat_owner_changed", "new_chat_members", "left_chat_member", "new_chat_title", "new_chat_photo",
        "delete_chat_photo", "group_chat_created", "supergroup_chat_created", "channel_chat_created",
        "managed_bot_created", "poll_option_added", "poll_option_deleted",
        "message_auto_delete_timer_changed",
        "migrate_to_chat_id", "migrate_from_chat_id", "pinned_message", "connected_website",
        "write_access_allowed", "proximity_alert_triggered", "boost_added", "chat_background_set",
        "forum_topic_created", "forum_topic_edited", "forum_topic_closed", "forum_topic_reopened",
        "general_forum_topic_hidden", "general_forum_topic_unhidden", "giveaway_created",
        "giveaway_completed",
        "paid_message_price_changed", "direct_message_price_changed", "video_chat_scheduled",
        "video_chat_started", "video_chat_ended", "video_chat_participants_invited",
    ), (_I, _SERVICE)),
}  # fmt: skip
"""Fields of `Message`: https://core.telegram.org/bots/api#message."""

SLACK_SUBTYPES: Table = {
    "(none)": (How.READ, "a direct message, or a mention of the app"),
    "file_share": (How.READ, "with its files"),
    "thread_broadcast": (How.READ, "a reply that was sent to the channel, too"),
    "me_message": (How.READ, "`/me`"),
    **dict.fromkeys((
        "share_shortcut", "huddle_thread", "reminder_add",
    ), (How.REFUSED, "an item of Slack's own")),
    **dict.fromkeys((
        "bot_message", "slackbot_response",
    ), (_I, "bots are not heard")),
    **dict.fromkeys((
        "message_changed", "message_deleted", "message_replied",
    ), (_I, "edits are not heard: send a new message")),
    **dict.fromkeys((
        "assistant_app_thread", "bot_add", "bot_remove", "bot_enable", "bot_disable", "channel_archive",
        "channel_unarchive", "channel_join", "channel_leave", "channel_name", "channel_purpose",
        "channel_topic",
        "channel_posting_permissions", "channel_convert_to_private", "channel_convert_to_public",
        "channel_canvas_updated", "tabbed_canvas_updated", "app_conversation_leave", "ekm_access_denied",
        "emoji_changed", "file_comment", "file_mention", "file_created", "file_changed", "file_deleted",
        "file_shared", "file_unshared", "file_public", "group_archive", "group_unarchive", "group_join",
        "group_leave", "group_name", "group_purpose", "group_topic", "joiner_notification", "pinned_item",
        "unpinned_item", "sh_room_created", "tombstone", "document_mention",
    ), (_I, "an event of the channel")),
}  # fmt: skip
"""Of the event `message`: https://docs.slack.dev/reference/events/message#subtypes. Unknown ones: as
refused."""

SLACK_BLOCKS: Table = {
    "rich_text": (How.READ, "its text, lists, quotes and code"),
    "section": (How.READ, "text and fields"),
    "header": (How.READ, ""),
    "markdown": (How.READ, ""),
    "context": (How.READ, "its texts"),
    "table": (How.READ, "the text of its cells"),
    "data_table": (How.READ, "the text of its cells"),
    "card": (How.READ, "its texts"),
    "carousel": (How.READ, "the texts of its cards"),
    "container": (How.READ, "the texts of what is in it"),
    "alert": (How.READ, "its text"),
    "plan": (How.READ, "its texts"),
    "task_card": (How.READ, "its texts"),
    "image": (How.NAMED, "title and alternative text"),
    "video": (How.NAMED, "title and description"),
    "file": (How.NAMED, "a line; the file itself is read from `files`"),
    "data_visualization": (How.NAMED, "its title"),
    "divider": (_I, _DISPLAY),
    "actions": (_I, "buttons"),
    "context_actions": (_I, "buttons"),
    "input": (_I, "not in messages"),
}
"""Where the event's `text` is empty: https://docs.slack.dev/reference/block-kit/blocks. Of unknown ones the
text."""

SLACK_FIELDS: Table = {
    "user": (_U, "the sender, whom the owner lets in"),
    "channel": (_U, "the conversation, with `thread_ts`"),
    "thread_ts": (_U, "as above"),
    "text": (How.READ, "the sender's own words"),
    "blocks": (How.READ, "where `text` is empty, see below"),
    "files": (How.READ, "files; of one that Slack does not show to the app a line"),
    "attachments": (
        How.NAMED,
        "of shared messages, and links to messages, author and text as a quote, and files",
    ),
    "subtype": (_U, "see below"),
    "bot_id": (_U, "bots are not heard"),
    "edited": (_I, _DISPLAY),
    "reactions": (_I, _DISPLAY),
    "room": (_I, "huddles"),
}

GITHUB: Table = {
    "issues opened": (How.READ, "title and text, where it mentions the account or has the label `agent`"),
    "pull_request opened": (How.READ, "as above"),
    "issue_comment created": (How.READ, "as above, also on pull requests"),
    "pull_request_review submitted": (How.READ, "as above; the agent reads the verdict, too"),
    "pull_request_review_comment created": (
        How.READ,
        "as above; the agent reads path, line, and the lines of the diff, and answers in that thread",
    ),
    "issues edited": (_I, "an edit is not a new request: mention the account in a comment"),
    "pull_request edited": (_I, "as above"),
    "issue_comment edited": (_I, "as above"),
    "pull_request_review edited": (_I, "as above"),
    "pull_request_review_comment edited": (_I, "as above"),
    "issues labeled": (_I, "the label counts for what is written from then on"),
    "pull_request labeled": (_I, "as above"),
    "issues assigned": (_I, "an assignment has no text: mention the account in a comment"),
    "pull_request assigned": (_I, "as above"),
    "pull_request review_requested": (_I, "as above"),
    "pull_request_review dismissed": (_I, ""),
    "issues deleted": (_I, ""),
    "issue_comment deleted": (_I, ""),
    "commit_comment created": (_I, "not subscribed"),
    "discussion created": (_I, "not subscribed"),
    "discussion_comment created": (_I, "not subscribed"),
}
"""Events and actions: https://docs.github.com/en/webhooks/webhook-events-and-payloads."""
