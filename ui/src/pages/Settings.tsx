/** One's own settings: the key to a model, what was used, the look, the account. */
import { useEffect, useState } from "preact/hooks";
import { agent } from "../agent";
import { api, wordsFor } from "../api";
import { ApiKeys } from "../components/account/ApiKeys";
import { Leaving } from "../components/account/Leaving";
import { Passkeys } from "../components/account/Passkeys";
import { Providers } from "../components/account/Providers";
import { SecondFactor } from "../components/account/SecondFactor";
import { Sessions } from "../components/account/Sessions";
import { Trail } from "../components/account/Trail";
import { KeyForm } from "../components/KeyForm";
import { Problem } from "../components/Problem";
import { Rooms } from "../components/Rooms";
import { StorageCard } from "../components/StorageCard";
import { session, signOut } from "../session";
import { chooseTheme, type Theme, theme } from "../theme";
import type { PeriodUsage, UsageReport } from "../types";

const THEMES: [Theme, string][] = [
  ["system", "As the system"],
  ["dark", "Dark"],
  ["light", "Light"],
];

export function Settings() {
  const who = session.value.state === "signed-in" ? session.value.user : null;
  const [problem, setProblem] = useState<string | null>(null);
  const leave = async () => {
    try {
      await signOut();
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  return (
    <Rooms>
      <section class="card" aria-labelledby="settings-model">
        <h2 id="settings-model">Model</h2>
        {agent.value && (
          <p>
            {agent.value.model.kind === "demo" ? (
              <>
                Your agent uses the <strong>demo model</strong>, whose answers were written beforehand. Add a
                key to talk to Claude.
              </>
            ) : (
              <>
                Your agent uses <strong>{agent.value.model.label}</strong>
              </>
            )}
          </p>
        )}
        <KeyForm name="anthropic_api_key" label="Anthropic API key" placeholder="sk-ant-…" />
      </section>
      <UsageCard />
      <StorageCard />
      <Providers />
      <SecondFactor />
      <Passkeys />
      <Sessions />
      <ApiKeys />
      <Trail />
      <Leaving />
      <section class="card" aria-labelledby="settings-look">
        <h2 id="settings-look">Look</h2>
        <fieldset class="choices">
          <legend class="visually-hidden">Theme</legend>
          {THEMES.map(([value, words]) => (
            <label key={value}>
              <input
                type="radio"
                name="theme"
                checked={theme.value === value}
                onChange={() => chooseTheme(value)}
              />
              <span>{words}</span>
            </label>
          ))}
        </fieldset>
      </section>
      <section class="card" aria-labelledby="settings-account">
        <h2 id="settings-account">Account</h2>
        <p>
          {who?.email}
          {who?.is_admin && <span class="muted"> · administrator</span>}
        </p>
        <Problem words={problem} />
        <button type="button" class="button" onClick={() => void leave()}>
          Sign out
        </button>
      </section>
    </Rooms>
  );
}

function UsageCard() {
  const [report, setReport] = useState<UsageReport | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    api.usage().then(setReport, (error) => setProblem(wordsFor(error)));
  }, []);
  return (
    <section class="card" aria-labelledby="settings-usage">
      <h2 id="settings-usage">Usage</h2>
      <Problem words={problem} />
      {report && (
        <>
          <div class="table-scroll">
            <table class="usage">
              <thead>
                <tr>
                  <th scope="col">
                    <span class="visually-hidden">Period</span>
                  </th>
                  <th scope="col">Model calls</th>
                  <th scope="col">Tokens in</th>
                  <th scope="col">Tokens out</th>
                </tr>
              </thead>
              <tbody>
                <UsageRow name="Today" usage={report.today} />
                <UsageRow name="This month" usage={report.month} />
              </tbody>
            </table>
          </div>
          {agent.value?.model.kind === "demo" ? (
            <p>The demo model has no limit of tokens.</p>
          ) : (
            <label class="meter">
              <span>
                {report.today.tokens.toLocaleString()} of {report.limits.daily_tokens.toLocaleString()} tokens
                used today
              </span>
              <progress value={report.today.tokens} max={Math.max(1, report.limits.daily_tokens)} />
            </label>
          )}
          <p class="muted">
            Days begin at 00:00 UTC. One message may cause at most {report.limits.turn_calls} model calls. The
            demo model's tokens do not count.
          </p>
        </>
      )}
    </section>
  );
}

function UsageRow({ name, usage }: { name: string; usage: PeriodUsage }) {
  const read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
  return (
    <tr>
      <th scope="row">{name}</th>
      <td>{usage.calls.toLocaleString()}</td>
      <td>{read.toLocaleString()}</td>
      <td>{usage.output_tokens.toLocaleString()}</td>
    </tr>
  );
}
