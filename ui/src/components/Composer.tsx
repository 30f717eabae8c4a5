/**
 * The box in which a message is written and files are put to it. Enter sends, Shift+Enter breaks the line; what was
 * written outlives a reload.
 */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { expectMessage } from "../agent";
import { pastesFiles } from "../attachments";
import type { Conversation } from "../conversation";
import { keepDraft, readDraft } from "../drafts";
import { openTurn } from "../events";
import { session } from "../session";
import { AttachChips } from "./AttachChips";
import { ClipIcon, SendIcon, StopIcon } from "./Icons";
import { Problem } from "./Problem";

const TALLEST_PX = 260;

/** Not on a phone, where this would bring up the keyboard over half of the conversation. */
export function focusComposer(): void {
  if (matchMedia("(pointer: fine)").matches) document.getElementById("message")?.focus();
}

export function Composer({ conversation }: { conversation: Conversation }) {
  const now = session.value;
  const looking = now.state === "signed-in" && now.user.impersonated_by !== null;
  return looking ? <LookingOnly /> : <Writing conversation={conversation} />;
}

/** In the place of the box while an administrator looks through somebody's eyes: the server takes no message. */
function LookingOnly() {
  return (
    <div class="composer">
      <div class="composer-box">
        <textarea
          rows={1}
          aria-label="Message"
          disabled
          placeholder="You can look, but not write: this is somebody else's account"
        />
      </div>
    </div>
  );
}

function Writing({ conversation }: { conversation: Conversation }) {
  const id = conversation.id.value;
  const box = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(() => readDraft(id));
  const open = openTurn(conversation.state.value);
  const { uploads } = conversation;
  const picker = useRef<HTMLInputElement>(null);
  const [pressed, setPressed] = useState(false);
  const unready = uploads.unready.value;
  const nothing = text.trim() === "" && uploads.items.value.length === 0;
  const stopping = open !== undefined && conversation.stopping.value === open.id;

  const change = (changed: string) => {
    setText(changed);
    keepDraft(conversation.id.value, changed);
  };

  const send = () => {
    if (nothing) return;
    if (unready !== null) {
      setPressed(true);
      return;
    }
    // The draft goes first: sending may give a new conversation its id, and with it another draft.
    change("");
    void conversation.send(text.trim() === "" ? "" : text, uploads.take());
    box.current?.focus();
  };

  // biome-ignore lint/correctness/useExhaustiveDependencies: the height follows from the text
  useLayoutEffect(() => {
    const area = box.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, TALLEST_PX)}px`;
  }, [text]);

  useEffect(focusComposer, []);

  useEffect(() => {
    if (unready === null) setPressed(false);
  }, [unready]);

  const returned = conversation.returned.value;
  useEffect(() => {
    if (returned === null) return;
    conversation.returned.value = null;
    setText((current) => {
      const joined = [returned, current].filter(Boolean).join("\n\n");
      keepDraft(conversation.id.value, joined);
      return joined;
    });
    box.current?.focus();
  }, [returned, conversation]);

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <Problem words={conversation.problem.value} icon />
      <Problem words={uploads.problem.value ?? (pressed ? unready : null)} icon />
      <div class="composer-box">
        <AttachChips uploads={uploads} onRemoved={focusComposer} />
        <input
          ref={picker}
          type="file"
          multiple
          hidden
          onChange={({ currentTarget: chosen }) => {
            uploads.add([...(chosen.files ?? [])]);
            // So that the same file can be chosen again.
            chosen.value = "";
            focusComposer();
          }}
        />
        <button
          type="button"
          class="round attach"
          aria-label="Attach files"
          title="Attach files"
          onClick={() => picker.current?.click()}
        >
          <ClipIcon />
        </button>
        <textarea
          ref={box}
          id="message"
          rows={1}
          aria-label="Message"
          aria-describedby="composer-hint"
          placeholder="Write to your agent"
          value={text}
          onInput={(event) => {
            void expectMessage();
            change(event.currentTarget.value);
          }}
          onPaste={(event) => {
            const pasted = event.clipboardData;
            if (!pasted || !pastesFiles(pasted.types)) return;
            event.preventDefault();
            uploads.add([...pasted.files]);
          }}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            send();
          }}
        />
        {open && (
          <button
            type="button"
            class="round stop"
            aria-label="Stop"
            title="Stop the answer"
            disabled={stopping}
            onClick={() => void conversation.stop()}
          >
            <StopIcon />
          </button>
        )}
        <button
          type="submit"
          class="round send"
          aria-label="Send"
          title={unready ?? "Send"}
          disabled={nothing || unready !== null}
        >
          <SendIcon />
        </button>
      </div>
      <p class="hint" id="composer-hint">
        Enter sends, Shift+Enter breaks the line
      </p>
    </form>
  );
}
