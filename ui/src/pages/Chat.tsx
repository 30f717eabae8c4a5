/** The page of a conversation, or of one that begins with the next message. */
import { useEffect, useMemo } from "preact/hooks";
import { agent } from "../agent";
import { AttachDrop } from "../components/AttachDrop";
import { Composer, focusComposer } from "../components/Composer";
import { titleOf } from "../components/ConversationList";
import { useTitle } from "../components/hooks";
import { WarningIcon } from "../components/Icons";
import { Messages } from "../components/Messages";
import { Shell } from "../components/Shell";
import { Welcome } from "../components/Welcome";
import { Conversation } from "../conversation";
import { conversations } from "../conversations";
import { chatPath, navigate, route } from "../router";

/** Kept outside the component: a new conversation gets its address while it is being shown. */
let shown: Conversation | null = null;

function conversationFor(id: string | null): Conversation {
  if (shown && shown.id.value === id) return shown;
  shown?.close();
  const opened = new Conversation(id, (created) => {
    if (shown === opened && route.value.page === "chat" && route.value.id === null)
      navigate(chatPath(created));
  });
  shown = opened;
  return opened;
}

export function closeConversation(): void {
  shown?.close();
  shown = null;
}

export function Chat({ id }: { id: string | null }) {
  const conversation = useMemo(() => conversationFor(id), [id]);
  useEffect(() => closeConversation, []);
  const info = conversations.value?.find((each) => each.id === id);
  const title = info ? titleOf(info) : id === null ? "New conversation" : "Conversation";
  useTitle(title);
  const loading = conversation.loading.value;
  const { turns, pending } = conversation.state.value;
  const empty = loading === "loaded" && turns.length === 0 && pending.length === 0;
  return (
    <Shell title={title}>
      <DemoBanner />
      {conversation.interrupted.value && (
        <p class="banner" role="status" aria-label="Connection">
          Reconnecting…
        </p>
      )}
      {loading === "gone" || loading === "failed" ? (
        <Missing conversation={conversation} gone={loading === "gone"} />
      ) : (
        <div class="chat">
          {empty ? (
            <Welcome
              onPick={(text) => {
                focusComposer();
                void conversation.send(text);
              }}
            />
          ) : (
            <Messages key={keyOf(conversation)} conversation={conversation} />
          )}
          <Composer key={keyOf(conversation)} conversation={conversation} />
          <AttachDrop uploads={conversation.uploads} onDropped={focusComposer} />
        </div>
      )}
      <div class="visually-hidden" aria-live="polite">
        {conversation.announcement.value}
      </div>
    </Shell>
  );
}

const keys = new WeakMap<Conversation, number>();
let lastKey = 0;

/** Tells conversations apart even before the server has given them an id. */
function keyOf(conversation: Conversation): number {
  const key = keys.get(conversation) ?? ++lastKey;
  keys.set(conversation, key);
  return key;
}

function Missing({ conversation, gone }: { conversation: Conversation; gone: boolean }) {
  return (
    <div class="welcome">
      <WarningIcon />
      <h2>{gone ? "This conversation is not here" : "The conversation could not be loaded"}</h2>
      <p role="alert">{gone ? "It may have been deleted." : conversation.problem.value}</p>
      {gone ? (
        <a class="button primary" href="/" data-route>
          Start a new one
        </a>
      ) : (
        <button type="button" class="button primary" onClick={() => void conversation.load()}>
          Try again
        </button>
      )}
    </div>
  );
}

function DemoBanner() {
  if (agent.value?.model.kind !== "demo") return null;
  return (
    <p class="banner demo">
      <a href="/settings" data-route>
        demo model: add a key to talk to Claude
      </a>
    </p>
  );
}
