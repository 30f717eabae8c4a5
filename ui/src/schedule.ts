/** What an agent has planned, in words for its user. Pure. */
import { count, duration, moment } from "./format";
import type { DoneJob, Job, Schedule } from "./types";

/** "every 30 min", "once", "0 9 * * 1 (Europe/Vienna)"; empty for what has no known time. */
export function timingWords(job: Job): string {
  if (job.kind === "at") return "once";
  if (job.kind === "every") return job.timing ? `every ${duration(Number(job.timing) * 1000)}` : "";
  return job.kind === "cron" ? job.timing : "";
}

/** What the job does next. */
export function nextWords(job: Job, now: number): string {
  if (job.running_since) return "runs now";
  if (!job.enabled) return "switched off";
  return job.next_run_at ? `next at ${moment(job.next_run_at, now)}` : "no next time";
}

/** What became of its last run; null where there was none. */
export function lastWords(job: Job, now: number): string | null {
  if (!job.last_run_at) return null;
  const ended =
    job.last_status === "error" ? "failed" : job.last_status === "skipped" ? "was skipped" : "ran";
  const late = job.late ? `, late: it was due at ${moment(job.late_for, now)}` : "";
  return `${ended} at ${moment(job.last_run_at, now)}${late}`;
}

export function doneWords(job: DoneJob, now: number): string {
  const late = job.late ? `, late: it was due at ${moment(job.due_at, now)}` : "";
  return `ran at ${moment(job.began_at, now)}${late}`;
}

export function heartbeatWords({ heartbeat }: Schedule): string {
  if (!heartbeat.on) return "Heartbeat off: it does nothing that nobody asked for.";
  return `Heartbeat on: about ${count(heartbeat.turns_per_day, "turn", "turns")} a day that nobody asked for.`;
}
