/** The user's conversations as links, with renaming and deleting. */
import { useState } from "preact/hooks";
import { wordsFor } from "../api";
import {
  conversations,
  conversationsProblem,
  deleteConversation,
  moreConversations,
  refreshConversations,
  renameConversation,
  showMoreConversations,
} from "../conversations";
import { chatPath, navigate, route } from "../router";
import type { ConversationInfo } from "../types";
import { Confirm, Dialog } from "./Dialog";
import { PencilIcon, TrashIcon } from "./Icons";
import { Problem } from "./Problem";

export const titleOf = (info: ConversationInfo) => info.title || "New conversation";

type Asking = { what: "rename" | "delete"; info: ConversationInfo };

export function ConversationList() {
  const [asking, setAsking] = useState<Asking | null>(null);
  const list = conversations.value;
  const here = route.value.page === "chat" ? route.value.id : null;
  return (
    <nav class="conversations" aria-label="Conversations">
      {conversationsProblem.value && (
        <p class="problem" role="alert">
          <span>{conversationsProblem.value}</span>
          <button type="button" class="link-button" onClick={() => void refreshConversations()}>
            Try again
          </button>
        </p>
      )}
      {list?.length === 0 && <p class="muted empty">No conversations yet</p>}
      <ul>
        {list?.map((info) => (
          <li key={info.id} class={info.id === here ? "conversation here" : "conversation"}>
            <a href={chatPath(info.id)} data-route aria-current={info.id === here ? "page" : undefined}>
              {titleOf(info)}
            </a>
            <button
              type="button"
              class="icon-button small"
              aria-label={`Rename ${titleOf(info)}`}
              onClick={() => setAsking({ what: "rename", info })}
            >
              <PencilIcon />
            </button>
            <button
              type="button"
              class="icon-button small"
              aria-label={`Delete ${titleOf(info)}`}
              onClick={() => setAsking({ what: "delete", info })}
            >
              <TrashIcon />
            </button>
          </li>
        ))}
      </ul>
      {moreConversations.value !== null && (
        <button type="button" class="link-button" onClick={() => void showMoreConversations()}>
          Show more
        </button>
      )}
      {asking?.what === "rename" && <Rename info={asking.info} onClose={() => setAsking(null)} />}
      {asking?.what === "delete" && <Delete info={asking.info} onClose={() => setAsking(null)} />}
    </nav>
  );
}

interface Props {
  info: ConversationInfo;
  onClose: () => void;
}

function Rename({ info, onClose }: Props) {
  const [title, setTitle] = useState(info.title ?? "");
  const [problem, setProblem] = useState<string | null>(null);
  const save = async () => {
    try {
      await renameConversation(info.id, title.trim());
      onClose();
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  return (
    <Dialog title="Rename conversation" onClose={onClose}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void save();
        }}
      >
        <label>
          Title
          <input
            type="text"
            required
            maxLength={200}
            value={title}
            onInput={(event) => setTitle(event.currentTarget.value)}
          />
        </label>
        <Problem words={problem} />
        <div class="dialog-actions">
          <button type="button" class="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="button primary" disabled={title.trim() === ""}>
            Rename
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Delete({ info, onClose }: Props) {
  const [problem, setProblem] = useState<string | null>(null);
  const remove = async () => {
    try {
      await deleteConversation(info.id);
      if (route.value.page === "chat" && route.value.id === info.id) navigate("/", { replace: true });
      onClose();
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  return (
    <Confirm
      title="Delete conversation"
      text={`“${titleOf(info)}” and its messages will be gone for good. Files that the agent wrote stay.`}
      action="Delete"
      problem={problem}
      onConfirm={() => void remove()}
      onClose={onClose}
    />
  );
}
