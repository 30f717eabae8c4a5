/** The agent's state as a coloured dot and a word, and the panel with all that is known behind it. */
import { useState } from "preact/hooks";
import { agent, STATE_WORDS } from "../agent";
import { AgentPanel } from "./AgentPanel";
import { Dialog } from "./Dialog";

export function AgentStatus() {
  const [open, setOpen] = useState(false);
  const known = agent.value;
  const word = known ? STATE_WORDS[known.state] : "…";
  return (
    <>
      <button
        type="button"
        class="pill"
        aria-haspopup="dialog"
        aria-label={`Agent: ${word}`}
        onClick={() => setOpen(true)}
      >
        <span class={`dot ${known?.state ?? "unknown"}`} aria-hidden="true" />
        {word}
      </button>
      <span class="visually-hidden" role="status" aria-label="Agent state">
        {word}
      </span>
      {open && (
        <Dialog title="Your agent" shape="side" onClose={() => setOpen(false)}>
          <AgentPanel />
        </Dialog>
      )}
    </>
  );
}
