/** What everybody did that matters: the audit log, newest first, and the whole of it as a file. */
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { wordsOf } from "../account/Trail";
import { usePages } from "../attempt";
import { Problem } from "../Problem";

export function Log() {
  const { value: rows, problem, more } = usePages(api.auditOfAll);
  return (
    <section class="card" aria-labelledby="admin-log">
      <h2 id="admin-log">What was done</h2>
      <Problem words={problem} />
      <ul class="rows">
        {rows?.map((row) => (
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
      {more && (
        <button type="button" class="button" onClick={more}>
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
