/** One message of the user and the agent's answer, as far as it has come. */
import { useState } from "preact/hooks";
import { agent } from "../agent";
import type { Conversation } from "../conversation";
import { isOpen, type Pending, type TurnView } from "../events";
import { count, duration } from "../format";
import { AttachedFiles } from "./AttachedFiles";
import { useNow } from "./hooks";
import { CheckIcon, CopyIcon, Spinner, WarningIcon } from "./Icons";
import { Markdown } from "./Markdown";
import { memo } from "./memo";
import { ToolRow } from "./ToolRow";

const SHOWN_OF_LONG = 3000;
const ELAPSED_AFTER_MS = 2000;

interface Props {
  turn: TurnView;
  conversation: Conversation;
  /** An earlier turn is still being answered. */
  queued: boolean;
}

export const Turn = memo(function DrawnTurn({ turn, conversation, queued }: Props) {
  const open = isOpen(turn);
  const busyTool = turn.tools.some((tool) => tool.phase !== "result");
  const waiting = open && (turn.progress !== null || (turn.answer === "" && !busyTool));
  const stopping = conversation.stopping.value === turn.id;
  return (
    <li class="turn">
      <UserMessage message={turn} />
      <article class="answer" aria-label="Answer" aria-busy={open}>
        {turn.tools.length > 0 && (
          <ul class="tools" aria-label="Tools used">
            {turn.tools.map((tool) => (
              <ToolRow key={tool.call_id} tool={tool} open={open} />
            ))}
          </ul>
        )}
        {turn.answer !== "" && <Markdown text={turn.answer} growing={open} />}
        {waiting && (
          <WaitLine
            words={stopping ? "Stopping…" : waitWords(turn, queued)}
            since={turn.attempt > 1 ? null : turn.createdAt}
          />
        )}
        {turn.status === "failed" && <Failed turn={turn} conversation={conversation} />}
        {turn.status === "stopped" && (
          <p class="outcome">
            Stopped.{" "}
            <button type="button" class="link-button" onClick={() => void conversation.retry(turn.id)}>
              Try again
            </button>
          </p>
        )}
        {turn.status === "completed" && <AnswerFoot turn={turn} />}
      </article>
    </li>
  );
});

export function PendingMessage({ message, conversation }: { message: Pending; conversation: Conversation }) {
  return (
    <li class="turn">
      <UserMessage message={message} />
      {message.problem === null ? (
        <WaitLine words={waitWords(null, false)} since={message.createdAt} />
      ) : (
        <div class="fault" role="alert">
          <WarningIcon />
          <div>
            <p>Not sent. {message.problem}</p>
            <div class="row">
              <button
                type="button"
                class="button small"
                onClick={() => void conversation.send(message.text, message.attachments, message.key)}
              >
                Send again
              </button>
              <button type="button" class="button small" onClick={() => conversation.withdraw(message)}>
                Edit
              </button>
            </div>
          </div>
        </div>
      )}
    </li>
  );
}

function UserMessage({ message: { text, attachments } }: { message: TurnView | Pending }) {
  const [whole, setWhole] = useState(false);
  const long = text.length > SHOWN_OF_LONG;
  return (
    <article class="user-message" aria-label="Your message">
      <AttachedFiles files={attachments} />
      {text !== "" && (
        <div class="bubble">
          {long && !whole ? `${text.slice(0, SHOWN_OF_LONG)}…` : text}
          {long && (
            <button type="button" class="link-button" onClick={() => setWhole(!whole)}>
              {whole ? "Show less" : `Show all ${text.length.toLocaleString()} characters`}
            </button>
          )}
        </div>
      )}
    </article>
  );
}

/**
 * What is being waited for. It is there from the first moment, before the server has said anything. `since` is when
 * the waiting began; null: now.
 */
function WaitLine({ words, since }: { words: string; since: string | null }) {
  const now = useNow();
  const [mounted] = useState(now);
  const elapsed = now - (since === null ? mounted : Date.parse(since));
  return (
    <p class="wait-line">
      <Spinner />
      <span>{words}</span>
      {elapsed >= ELAPSED_AFTER_MS && <span class="muted">{duration(elapsed)}</span>}
    </p>
  );
}

function waitWords(turn: TurnView | null, queued: boolean): string {
  if (turn?.progress) return turn.progress.text;
  if (queued) return "Waiting for the answer before this one…";
  const ready = turn?.status === "running" || agent.value?.state === "awake";
  return ready ? "Thinking…" : "Waking your agent…";
}

function Failed({ turn, conversation }: { turn: TurnView; conversation: Conversation }) {
  const error = turn.error;
  return (
    <div class="fault">
      <WarningIcon />
      <div>
        <p>{error?.message ?? "The agent could not answer."}</p>
        <div class="row">
          <button type="button" class="button small" onClick={() => void conversation.retry(turn.id)}>
            Try again
          </button>
          {error && /key|credit|daily/.test(error.code) && (
            <a class="button small" href="/settings" data-route>
              Open settings
            </a>
          )}
        </div>
      </div>
    </div>
  );
}

function AnswerFoot({ turn }: { turn: TurnView }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(turn.answer);
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    } catch {
      setCopied(false);
    }
  };
  const { usage } = turn;
  return (
    <footer class="answer-foot">
      <button type="button" class="icon-button small" aria-label="Copy answer" onClick={() => void copy()}>
        {copied ? <CheckIcon /> : <CopyIcon />}
      </button>
      {usage && usage.calls > 0 && (
        <span class="muted">
          {usage.input_tokens.toLocaleString()} in · {usage.output_tokens.toLocaleString()} out ·{" "}
          {count(usage.calls, "model call", "model calls")}
        </span>
      )}
    </footer>
  );
}
