/** All that is known of the agent: state, steps of waking, what keeps it awake, isolation, model; and its switches. */
import type { ComponentChildren } from "preact";
import { agent, agentProblem, STATE_WORDS, setEgress, tellAgent } from "../agent";
import { duration, moment } from "../format";
import type { Agent } from "../types";
import { useNow } from "./hooks";
import { CheckIcon, Spinner, WarningIcon } from "./Icons";
import { Problem } from "./Problem";
import { SavedLine } from "./SavedLine";
import { Schedule } from "./Schedule";

export function AgentPanel() {
  const known = agent.value;
  const now = useNow();
  if (!known) return <p class="muted">The agent's state is not known yet.</p>;
  const age = duration(now - Date.parse(known.since));
  return (
    <div class="panel">
      <p class="panel-state">
        <span class={`dot ${known.state}`} aria-hidden="true" />
        <strong>{STATE_WORDS[known.state]}</strong>
        <span class="muted">for {age}</span>
      </p>
      {known.error && (
        <p class="problem">
          <WarningIcon />
          <span>
            {known.error.message}
            {known.retry_at && ` Next try at ${moment(known.retry_at, now)}.`}
          </span>
        </p>
      )}
      {known.state === "starting" && <Steps known={known} />}
      <Actions known={known} />
      <Problem words={agentProblem.value} />

      <Section title="Kept awake by">
        {known.kept_awake_by.length === 0 ? (
          <p>{restWords(known)}</p>
        ) : (
          <ul class="plain-list">
            {known.kept_awake_by.map((hold) => (
              <li key={`${hold.reason} ${hold.reference}`}>
                {hold.text}
                {hold.until && <span class="muted"> until {moment(hold.until, now)}</span>}
              </li>
            ))}
          </ul>
        )}
        {known.next_wake_at && <p>Wakes by itself at {moment(known.next_wake_at, now)}.</p>}
      </Section>

      <Section title="Schedule">
        <Schedule known={known} now={now} />
      </Section>

      <Section title="Files">
        <SavedLine files={known.files} now={now} />
        <p>
          <a href="/files" data-route>
            All saved states
          </a>
        </p>
      </Section>

      <Section title="Model">
        {known.model.kind === "demo" ? (
          <p>
            <a href="/settings" data-route>
              {known.model.label}
            </a>
          </p>
        ) : (
          <p>{known.model.label}</p>
        )}
      </Section>

      <Section title="Internet">
        {known.egress_policy === "opt-in" ? (
          <>
            <label class="switch">
              <input
                type="checkbox"
                role="switch"
                aria-checked={known.egress}
                checked={known.egress}
                onChange={(event) => void setEgress(event.currentTarget.checked)}
              />
              <span>Let the agent reach the internet</span>
            </label>
            <p class="muted">
              Through the platform's proxy, never your local network. Switching it on applies when the agent
              next starts, switching it off at once.
            </p>
          </>
        ) : (
          <p>
            {known.egress_policy === "on"
              ? "Your agent can reach the internet. The operator of this installation decides that."
              : "Your agent cannot reach the internet. The operator of this installation decides that."}
          </p>
        )}
      </Section>

      {known.isolation && <Isolation isolation={known.isolation} />}
      {known.image && (
        <Section title="Version">
          <p>{known.image}</p>
          <p>
            <a href="/agent/gateway/" target="_blank" rel="noopener">
              OpenClaw's own pages
            </a>
          </p>
        </Section>
      )}
    </div>
  );
}

function Section({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <section>
      <h3>{title}</h3>
      {children}
    </section>
  );
}

function Steps({ known }: { known: Agent }) {
  const current = known.steps.findIndex((step) => step.step === known.progress?.step);
  return (
    <ol class="steps" aria-label="Steps of waking">
      {known.steps.map((step, index) => {
        const state = index < current ? "done" : index === current ? "current" : "ahead";
        return (
          <li key={step.step} class={state} aria-current={state === "current" ? "step" : undefined}>
            <span class="tool-mark">
              {state === "done" && <CheckIcon />}
              {state === "current" && <Spinner />}
            </span>
            {step.text}
          </li>
        );
      })}
    </ol>
  );
}

function Actions({ known }: { known: Agent }) {
  const asleep = known.state === "stopped" || known.state === "paused" || known.state === "failed";
  return (
    <div class="row">
      {asleep && (
        <button type="button" class="button primary" onClick={() => void tellAgent("wake")}>
          Wake
        </button>
      )}
      {(known.state === "awake" || known.state === "paused" || known.state === "starting") && (
        <button type="button" class="button" onClick={() => void tellAgent("hibernate")}>
          Put to sleep
        </button>
      )}
      {known.state !== "stopped" && known.state !== "stopping" && (
        <button type="button" class="button" onClick={() => void tellAgent("restart")}>
          Restart
        </button>
      )}
    </div>
  );
}

function Isolation({ isolation }: { isolation: NonNullable<Agent["isolation"]> }) {
  return (
    <Section title="Isolation">
      <p>
        <strong>{isolation.level}</strong>
      </p>
      <p>{isolation.summary}</p>
      {!isolation.is_boundary && (
        <p class="problem">
          <WarningIcon />
          <span>This is not a security boundary.</span>
        </p>
      )}
      {isolation.guarantees.length > 0 && (
        <ul class="marked-list guaranteed" aria-label="Guaranteed">
          {isolation.guarantees.map((text) => (
            <li key={text}>
              <CheckIcon /> <span>{text}</span>
            </li>
          ))}
        </ul>
      )}
      {isolation.missing.length > 0 && (
        <>
          <p class="muted">Missing here:</p>
          <ul class="marked-list missing" aria-label="Missing">
            {isolation.missing.map((text) => (
              <li key={text}>
                <WarningIcon /> <span>{text}</span>
              </li>
            ))}
          </ul>
        </>
      )}
    </Section>
  );
}

function restWords(known: Agent): string {
  if (known.state !== "awake" && known.state !== "paused") return "Nothing. It wakes when you write.";
  const pause = duration(known.pause_after_seconds * 1000);
  const stop = duration(known.stop_after_seconds * 1000);
  return `Nothing. Unused, it pauses after ${pause} and sleeps after ${stop}.`;
}
