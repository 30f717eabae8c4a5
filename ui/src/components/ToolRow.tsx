/** One tool call of the agent, in a line. */
import type { ToolCall } from "../types";
import { CheckIcon, Spinner, WarningIcon } from "./Icons";

interface Props {
  tool: ToolCall;
  /** The turn is not finished; a call without a result is then still under way. */
  open: boolean;
}

export function ToolRow({ tool, open }: Props) {
  const state = tool.phase === "result" ? (tool.failed ? "failed" : "done") : open ? "running" : "ended";
  return (
    <li class={`tool ${state}`}>
      <span class="tool-mark">
        {state === "running" && <Spinner />}
        {state === "done" && <CheckIcon />}
        {state === "failed" && <WarningIcon />}
      </span>
      <span class="tool-name">{tool.name}</span>
      {tool.summary && (
        <span class="tool-summary" title={tool.summary}>
          {tool.summary}
        </span>
      )}
      <span class={state === "failed" ? "tool-state" : "visually-hidden"}>{state}</span>
    </li>
  );
}
