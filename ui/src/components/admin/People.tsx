/** Everybody who has an account: let in, suspended, given a role; and seeing what they see, with a reason. */
import { useState } from "preact/hooks";
import { api, wordsFor } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import type { Account } from "../../types";
import { usePages } from "../attempt";
import { Dialog } from "../Dialog";
import { OneLine } from "../OneLine";
import { Problem } from "../Problem";

const STATUS_WORDS: Record<Account["status"], string> = {
  active: "",
  pending: "waits to be approved",
  suspended: "suspended",
  deleting: "is being deleted",
};

export function People({ mayChange, own }: { mayChange: boolean; own: string }) {
  const [search, setSearch] = useState("");
  const people = usePages((after: string | null) => api.users(after, search));
  const { problem, attempt } = people;
  const look = (words: string) => {
    setSearch(words);
    people.restart();
  };
  return (
    <section class="card" aria-labelledby="admin-people">
      <h2 id="admin-people">People</h2>
      <Problem words={problem} />
      <div class="form">
        <label>
          Find somebody
          <input
            type="search"
            maxLength={100}
            placeholder="ada"
            value={search}
            onInput={(event) => look(event.currentTarget.value)}
          />
        </label>
      </div>
      {people.value?.length === 0 && <p class="muted">Nobody has that in their address or name.</p>}
      <ul class="rows">
        {people.value?.map((user) => (
          <Person
            key={user.id}
            user={user}
            mayChange={mayChange && user.id !== own && user.status !== "deleting"}
            attempt={attempt}
          />
        ))}
      </ul>
      {people.more && (
        <button type="button" class="button" onClick={people.more}>
          Show more
        </button>
      )}
      {mayChange && (
        <OneLine
          label="Let somebody in"
          type="email"
          placeholder="ada@example.org"
          action="Add"
          onSubmit={(email) => attempt(() => api.addUser(email))}
          note="They get no mail; they can sign in from now on."
        />
      )}
    </section>
  );
}

interface PersonProps {
  user: Account;
  mayChange: boolean;
  attempt: (work: () => Promise<unknown>) => Promise<boolean>;
}

function Person({ user, mayChange, attempt }: PersonProps) {
  const [looking, setLooking] = useState(false);
  const change = (what: Parameters<typeof api.changeUser>[1]) =>
    void attempt(() => api.changeUser(user.id, what));
  const status = STATUS_WORDS[user.status];
  return (
    <li class="item" aria-label={user.email}>
      <div>
        {user.name ? `${user.name}, ${user.email}` : user.email} {status && <strong>{status}</strong>}{" "}
        <span class="muted">
          since {moment(user.created_at, serverNow())}
          {user.mfa_required && "; must have a second factor"}
        </span>
      </div>
      {mayChange ? (
        <div class="row">
          <label class="inline">
            Role{" "}
            <select
              value={user.role}
              onChange={(event) => change({ role: event.currentTarget.value as Account["role"] })}
            >
              <option value="user">user</option>
              <option value="auditor">auditor</option>
              <option value="admin">administrator</option>
            </select>
          </label>
          <button
            type="button"
            class="button small"
            onClick={() => change({ status: user.status === "active" ? "suspended" : "active" })}
          >
            {user.status === "active" ? "Suspend" : user.status === "pending" ? "Approve" : "Let in again"}
          </button>
          <button
            type="button"
            class="button small"
            onClick={() => change({ mfa_required: !user.mfa_required })}
          >
            {user.mfa_required ? "Demand no second factor" : "Demand a second factor"}
          </button>
          {user.status === "active" && user.role !== "admin" && (
            <button type="button" class="button small" onClick={() => setLooking(true)}>
              See what they see
            </button>
          )}
        </div>
      ) : (
        <span class="muted">{user.role}</span>
      )}
      {looking && <Impersonation user={user} onClose={() => setLooking(false)} />}
    </li>
  );
}

function Impersonation({ user, onClose }: { user: Account; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const begin = async () => {
    setProblem(null);
    try {
      await api.impersonate(user.id, reason);
      location.assign("/");
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  return (
    <Dialog title={`See what ${user.email} sees`} onClose={onClose}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void begin();
        }}
      >
        <p>For an hour at most. They will read of it in their account, with your reason.</p>
        <label>
          Reason
          <input
            required
            maxLength={1000}
            placeholder="They asked me to look at a job that fails."
            value={reason}
            onInput={(event) => setReason(event.currentTarget.value)}
          />
        </label>
        <Problem words={problem} />
        <button type="submit" class="button primary" disabled={reason.trim() === ""}>
          Begin
        </button>
      </form>
    </Dialog>
  );
}
