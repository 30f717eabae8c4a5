/** The box in which a message is written. Enter sends, Shift+Enter breaks the line; drafts outlive a reload. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { expectMessage } from "../agent";
import type { Conversation } from "../conversation";
import { keepDraft, readDraft } from "../drafts";
import { openTurn } from "../events";
import { SendIcon, StopIcon, WarningIcon } from "./Icons";

const TALLEST_PX = 260;

/** Not on a phone, where this would bring up the keyboard over half of the conversation. */
export function focusComposer(): void {
  if (matchMedia("(pointer: fine)").matches) document.getElementById("message")?.focus();
}

export function Composer({ conversation }: { conversation: Conversation }) {
  const id = conversation.id.value;
  const box = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(() => readDraft(id));
  const open = openTurn(conversation.state.value);
  const stopping = open !== undefined && conversation.stopping.value === open.id;

  const change = (changed: string) => {
    setText(changed);
    keepDraft(conversation.id.value, changed);
  };

  const send = () => {
    if (text.trim() === "") return;
    // The draft goes first: sending may give a new conversation its id, and with it another draft.
    change("");
    void conversation.send(text);
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

  const returned = conversation.returned.value;
  useEffect(() => {
    if (returned === null) return;
    conversation.returned.value = null;
    setText((current) => {
      const joined = current ? `${returned}\n\n${current}` : returned;
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
      {conversation.problem.value && (
        <p class="problem" role="alert">
          <WarningIcon />
          <span>{conversation.problem.value}</span>
        </p>
      )}
      <div class="composer-box">
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
        <button type="submit" class="round send" aria-label="Send" title="Send" disabled={text.trim() === ""}>
          <SendIcon />
        </button>
      </div>
      <p class="hint" id="composer-hint">
        Enter sends, Shift+Enter breaks the line
      </p>
    </form>
  );
}
