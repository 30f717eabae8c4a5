/** The saved states of the agent's files: bring one back, take it away, or send one in. */
import { useEffect, useRef, useState } from "preact/hooks";
import { agent, tellAgent } from "../agent";
import { api, wordsFor } from "../api";
import { Confirm } from "../components/Dialog";
import { useNow, useTitle } from "../components/hooks";
import { Problem } from "../components/Problem";
import { SavedLine } from "../components/SavedLine";
import { Shell } from "../components/Shell";
import { snapshotWords, waitingWords } from "../files";
import { moment } from "../format";
import type { Snapshot, SnapshotPage } from "../types";

export function Files() {
  useTitle("Files");
  const now = useNow();
  const known = agent.value;
  const [page, setPage] = useState<SnapshotPage | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [wanted, setWanted] = useState<Snapshot | null>(null);
  const [askProblem, setAskProblem] = useState<string | null>(null);

  const look = async (cursor: string | null = null) => {
    try {
      const found = await api.snapshots(cursor);
      setPage((before) =>
        cursor !== null && before ? { ...found, items: [...before.items, ...found.items] } : found,
      );
      setProblem(null);
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: asked again when it was saved or started.
  useEffect(() => void look(), [known?.files.generation, known?.state]);

  const restore = async (snapshot: Snapshot) => {
    try {
      await api.restoreSnapshot(snapshot.generation);
      setWanted(null);
      await look();
    } catch (error) {
      setAskProblem(wordsFor(error));
    }
  };

  const waiting = page && waitingWords(page);
  const runs = known?.state === "awake" || known?.state === "paused";
  return (
    <Shell title="Files">
      <div class="settings">
        <section class="card" aria-labelledby="files-saved">
          <h2 id="files-saved">Saved states</h2>
          {known && <SavedLine files={known.files} now={now} />}
          {waiting && (
            <p role="status">
              {waiting}{" "}
              {runs && (
                <button type="button" class="button" onClick={() => void tellAgent("restart")}>
                  Restart it now
                </button>
              )}
            </p>
          )}
          <Problem words={problem} />
          {page?.items.length === 0 && <p class="muted">Nothing has been saved yet.</p>}
          {page && page.items.length > 0 && (
            <div class="table-scroll">
              <table class="usage">
                <thead>
                  <tr>
                    <th scope="col">Saved</th>
                    <th scope="col">What</th>
                    <th scope="col">
                      <span class="visually-hidden">Actions</span>
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {page.items.map((snapshot) => (
                    <tr key={snapshot.generation}>
                      <th scope="row">{moment(snapshot.created_at, now)}</th>
                      <td>{snapshotWords(snapshot)}</td>
                      <td>
                        <button
                          type="button"
                          class="button"
                          onClick={() => {
                            setAskProblem(null);
                            setWanted(snapshot);
                          }}
                        >
                          Restore
                        </button>{" "}
                        <a class="button" href={api.archiveUrl(snapshot.generation)} download>
                          Download
                        </a>
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
          {page?.next_cursor && (
            <button type="button" class="button" onClick={() => void look(page.next_cursor)}>
              Older ones
            </button>
          )}
        </section>
        <Upload onSent={() => void look()} />
      </div>
      {wanted && (
        <Confirm
          title="Restore these files?"
          text={`All files of your agent become those of ${moment(wanted.created_at, now)} when it next starts. What is there now is saved first, so you can come back.`}
          action="Restore"
          problem={askProblem}
          onConfirm={() => void restore(wanted)}
          onClose={() => setWanted(null)}
        />
      )}
    </Shell>
  );
}

function Upload({ onSent }: { onSent: () => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [file, setFile] = useState<File | null>(null);
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);

  const choose = (chosen: File | null) => {
    setProblem(null);
    setFile(chosen);
    if (chosen === null && input.current) input.current.value = "";
  };
  const send = async (chosen: File) => {
    setSending(true);
    try {
      await api.sendArchive(chosen);
      choose(null);
      onSent();
    } catch (error) {
      setProblem(wordsFor(error));
    } finally {
      setSending(false);
    }
  };
  return (
    <section class="card" aria-labelledby="files-upload">
      <h2 id="files-upload">Upload</h2>
      <p>A zip that you downloaded here, or from another OCMT, becomes your agent's files.</p>
      <input
        ref={input}
        type="file"
        accept=".zip,application/zip"
        aria-label="Archive"
        onChange={(event) => choose(event.currentTarget.files?.[0] ?? null)}
      />
      {file && (
        <Confirm
          title="Replace all files?"
          text={`All files of your agent become those of ${file.name} when it next starts. What is there now is saved first, so you can come back.`}
          action={sending ? "Uploading…" : "Upload"}
          problem={problem}
          onConfirm={() => {
            if (!sending) void send(file);
          }}
          onClose={() => {
            if (!sending) choose(null);
          }}
        />
      )}
    </section>
  );
}
