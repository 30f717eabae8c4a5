/** What everybody did that matters: the audit log, newest first, and the whole of it as a file. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { wordsOf } from "../account/Trail";
import { useShown } from "../attempt";
import { Problem } from "../Problem";

export function Log() {
  const [pages, setPages] = useState<(number | null)[]>([null]);
  const { value: shown, problem } = useShown(async () => {
    const read = await Promise.all(pages.map((before) => api.auditOfAll(before)));
    return { items: read.flatMap((page) => page.items), next: read.at(-1)?.next ?? null };
  }, pages);
  return (
    <section class="card" aria-labelledby="admin-log">
      <h2 id="admin-log">What was done</h2>
      <Problem words={problem} />
      <ul class="rows">
        {shown?.items.map((row) => (
          <li key={row.id}>
            {wordsOf(row.action)}{" "}
            <span class="muted">
              {moment(row.at, serverNow())}, by {who(row.actor_email, row.actor_id)}, of{" "}
              {who(row.subject_email, row.subject_id)}
              {typeof row.details?.reason === "string" && `: ${row.details.reason}`}
            </span>
          </li>
        ))}
      </ul>
      {shown?.next && (
        <button type="button" class="button" onClick={() => setPages([...pages, shown.next])}>
          Show more
        </button>
      )}
      <a class="button" href="/api/v1/admin/audit/export" download>
        The whole log (JSON lines)
      </a>
    </section>
  );
}

const who = (email: string | null, id: string | null) =>
  email ?? (id ? `somebody deleted (${id})` : "nobody");
