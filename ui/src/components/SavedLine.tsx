/** Whether the agent's files are safe, in one line. */
import { savedWords } from "../files";
import type { FilesState } from "../types";
import { WarningIcon } from "./Icons";

export function SavedLine({ files, now }: { files: FilesState; now: number }) {
  if (!files.problem) return <p>{savedWords(files, now)}</p>;
  return (
    <p class="problem">
      <WarningIcon />
      <span>{savedWords(files, now)}</span>
    </p>
  );
}
