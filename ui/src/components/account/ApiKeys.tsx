/** API keys for one's own programs: made with scopes, shown once, revoked. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { useShown } from "../attempt";
import { Problem } from "../Problem";
import { Secret } from "./Secret";

const DAY_MS = 86_400_000;

export function ApiKeys() {
  const { value: page, problem, attempt } = useShown(api.apiKeys);
  const [chosen, setChosen] = useState<string[]>([]);
  const [name, setName] = useState("");
  const [days, setDays] = useState("90");
  const [made, setMade] = useState<string | null>(null);

  const make = () =>
    attempt(async () => {
      const expires = days === "" ? null : new Date(serverNow() + Number(days) * DAY_MS).toISOString();
      const key = await api.makeApiKey({ name, scopes: chosen, expires_at: expires });
      setMade(key.key);
      setName("");
      setChosen([]);
    });

  return (
    <section class="card" aria-labelledby="settings-keys">
      <h2 id="settings-keys">API keys</h2>
      <p class="muted">For your own programs: `Authorization: Bearer …`.</p>
      <ul class="rows">
        {page?.items.map((key) => (
          <li key={key.id} class="stored">
            <span>
              {key.name} <code>{key.prefix}…</code>{" "}
              <span class="muted">
                {key.scopes.join(", ")};{" "}
                {key.last_used_at ? `last used ${moment(key.last_used_at, serverNow())}` : "never used"}
                {key.expires_at && `; until ${moment(key.expires_at, serverNow())}`}
              </span>
            </span>
            <button
              type="button"
              class="link-button"
              onClick={() => void attempt(() => api.revokeApiKey(key.id))}
            >
              Revoke
            </button>
          </li>
        ))}
      </ul>
      {made && (
        <Secret
          title="Your new key"
          text={made}
          words="It is shown this once and never again: copy it now."
        />
      )}
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void make();
        }}
      >
        <label>
          Name of the new key
          <input
            required
            maxLength={100}
            placeholder="backup script"
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <fieldset class="scopes">
          <legend>It may</legend>
          {Object.entries(page?.scopes ?? {}).map(([scope, words]) => (
            <label key={scope} class="check">
              <input
                type="checkbox"
                checked={chosen.includes(scope)}
                onChange={(event) =>
                  setChosen(
                    event.currentTarget.checked
                      ? [...chosen, scope]
                      : chosen.filter((other) => other !== scope),
                  )
                }
              />
              <span>
                <code>{scope}</code> <span class="muted">{words}</span>
              </span>
            </label>
          ))}
        </fieldset>
        <label>
          For how long
          <select value={days} onChange={(event) => setDays(event.currentTarget.value)}>
            <option value="30">30 days</option>
            <option value="90">90 days</option>
            <option value="365">A year</option>
            <option value="">Until it is revoked</option>
          </select>
        </label>
        <Problem words={problem} />
        <button type="submit" class="button primary" disabled={chosen.length === 0}>
          Make a key
        </button>
      </form>
    </section>
  );
}
