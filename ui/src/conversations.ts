/** The list of the user's conversations, most recently used first. */
import { signal } from "@preact/signals";
import { api, wordsFor } from "./api";
import type { ConversationInfo } from "./types";

/** null: not known yet. */
export const conversations = signal<ConversationInfo[] | null>(null);
export const conversationsProblem = signal<string | null>(null);
export const moreConversations = signal<string | null>(null);

export async function refreshConversations(): Promise<void> {
  try {
    const page = await api.conversations();
    const fresh = new Set(page.items.map((info) => info.id));
    const oldest = page.items.at(-1);
    // Pages that were shown beyond the first stay, so that the list does not shrink under the reader.
    const beyond = (conversations.value ?? []).filter(
      (info) =>
        oldest && page.next_cursor !== null && !fresh.has(info.id) && info.updated_at < oldest.updated_at,
    );
    if (beyond.length === 0) moreConversations.value = page.next_cursor;
    conversations.value = [...page.items, ...beyond];
    conversationsProblem.value = null;
  } catch (error) {
    conversationsProblem.value = wordsFor(error);
  }
}

export async function showMoreConversations(): Promise<void> {
  const cursor = moreConversations.value;
  if (cursor === null) return;
  try {
    const page = await api.conversations(cursor);
    const known = new Set((conversations.value ?? []).map((info) => info.id));
    const added = page.items.filter((info) => !known.has(info.id));
    conversations.value = [...(conversations.value ?? []), ...added];
    moreConversations.value = page.next_cursor;
  } catch (error) {
    conversationsProblem.value = wordsFor(error);
  }
}

/** Puts a conversation at the top, as the server will once it has the message. */
export function noteUse(info: ConversationInfo): void {
  const others = (conversations.value ?? []).filter((other) => other.id !== info.id);
  conversations.value = [info, ...others];
}

/** Raises: ApiError. */
export async function renameConversation(id: string, title: string): Promise<void> {
  const renamed = await api.renameConversation(id, title);
  conversations.value = (conversations.value ?? []).map((info) => (info.id === id ? renamed : info));
}

/** Raises: ApiError. */
export async function deleteConversation(id: string): Promise<void> {
  await api.deleteConversation(id);
  conversations.value = (conversations.value ?? []).filter((info) => info.id !== id);
}

export function forgetConversations(): void {
  conversations.value = null;
  moreConversations.value = null;
}
