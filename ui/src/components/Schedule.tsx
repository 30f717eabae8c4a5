/** What the agent has planned: its jobs, when they run, and whether they were late. Looking wakes nothing. */
import { useEffect, useState } from "preact/hooks";
import { api, wordsFor } from "../api";
import { count } from "../format";
import { doneWords, heartbeatWords, lastWords, nextWords, timingWords } from "../schedule";
import type { Agent, Job, Schedule as Planned } from "../types";

export function Schedule({ known, now }: { known: Agent; now: number }) {
  const [planned, setPlanned] = useState<Planned | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  // biome-ignore lint/correctness/useExhaustiveDependencies: asked again whenever the agent has changed.
  useEffect(() => {
    let gone = false;
    api.schedule().then(
      (answer) => {
        if (gone) return;
        setPlanned(answer);
        setProblem(null);
      },
      (error) => {
        if (!gone) setProblem(wordsFor(error));
      },
    );
    return () => {
      gone = true;
    };
  }, [known.state, known.next_wake_at, known.kept_awake_by.length]);
  if (problem) return <p class="problem">{problem}</p>;
  if (!planned) return <p class="muted">Loading…</p>;
  return (
    <>
      {planned.jobs.length === 0 ? (
        <p>Nothing. Ask your agent to remind you of something, or to do it every morning.</p>
      ) : (
        <ul class="plain-list">
          {planned.jobs.map((job) => (
            <JobLine key={job.id} job={job} now={now} />
          ))}
        </ul>
      )}
      {planned.done.length > 0 && (
        <ul class="plain-list" aria-label="Done">
          {planned.done.map((job) => (
            <li key={job.id}>
              {job.name} <span class="muted">{doneWords(job, now)}</span>
            </li>
          ))}
        </ul>
      )}
      {planned.left_out > 0 && <p class="muted">And {count(planned.left_out, "more job", "more jobs")}.</p>}
      <p class="muted">{heartbeatWords(planned)}</p>
    </>
  );
}

function JobLine({ job, now }: { job: Job; now: number }) {
  const last = lastWords(job, now);
  return (
    <li>
      {job.name} <span class="muted">{timingWords(job)}</span>
      <br />
      <span class="muted">{nextWords(job, now)}</span>
      {last && (
        <>
          <br />
          <span class="muted">{last}</span>
        </>
      )}
      {job.last_error && <span class="problem">{job.last_error}</span>}
    </li>
  );
}
