/** The saved states of an agent's files, in words for its user. Pure. */
import { count, moment, size } from "./format";
import type { FilesState, Snapshot, SnapshotPage } from "./types";

/** Whether they are safe, and what to do where they are not. */
export function savedWords(files: FilesState, now: number): string {
  const saved = files.saved_at === null ? null : moment(files.saved_at, now);
  if (files.problem) {
    const since = saved === null ? "have never been saved" : `are not saved any more since ${saved}`;
    return `Your files ${since}: ${files.problem.message}`;
  }
  return saved === null ? "There is nothing to save yet." : `Saved at ${saved}.`;
}

/** "1,204 files, 3.4 MB". */
export function snapshotWords(snapshot: Snapshot): string {
  return `${count(snapshot.files, "file", "files")}, ${size(snapshot.bytes)}`;
}

/** What happens at the agent's next start; null: nothing. */
export function waitingWords(page: SnapshotPage): string | null {
  if (page.import_asked)
    return "The archive that you sent takes the place of all files when your agent next starts.";
  if (page.restore_asked === null) return null;
  return `State ${page.restore_asked} comes back when your agent next starts.`;
}
