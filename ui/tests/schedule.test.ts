import { describe, expect, test } from "vitest";
import { moment } from "../src/format";
import { doneWords, heartbeatWords, lastWords, nextWords, timingWords } from "../src/schedule";
import type { Job, Schedule } from "../src/types";

const NOW = Date.parse("2026-11-24T10:00:00Z");

const job = (more: Partial<Job> = {}): Job => ({
  id: "1",
  name: "Morning news",
  kind: "every",
  timing: "1800",
  enabled: true,
  next_run_at: "2026-11-24T10:30:00Z",
  running_since: null,
  last_run_at: null,
  last_status: null,
  last_error: null,
  late: false,
  late_for: null,
  ...more,
});

describe("when a job runs", () => {
  test("an interval, a single time, a cron expression, and what has no time", () => {
    expect(timingWords(job())).toBe("every 30 min");
    expect(timingWords(job({ kind: "at", timing: "2026-11-24T10:30:00Z" }))).toBe("once");
    expect(timingWords(job({ kind: "cron", timing: "0 9 * * 1 (Europe/Vienna)" }))).toBe(
      "0 9 * * 1 (Europe/Vienna)",
    );
    expect(timingWords(job({ kind: "stream", timing: "" }))).toBe("");
  });

  test("what it does next", () => {
    expect(nextWords(job(), NOW)).toBe(`next at ${moment("2026-11-24T10:30:00Z", NOW)}`);
    expect(nextWords(job({ running_since: "2026-11-24T09:59:00Z" }), NOW)).toBe("runs now");
    expect(nextWords(job({ enabled: false }), NOW)).toBe("switched off");
    expect(nextWords(job({ next_run_at: null }), NOW)).toBe("no next time");
  });
});

describe("what became of its last run", () => {
  test("nothing is said before the first", () => expect(lastWords(job(), NOW)).toBeNull());

  test("it ran, it failed, it was skipped", () => {
    const last_run_at = "2026-11-24T09:30:00Z";
    const at = moment(last_run_at, NOW);
    expect(lastWords(job({ last_run_at, last_status: "ok" }), NOW)).toBe(`ran at ${at}`);
    expect(lastWords(job({ last_run_at, last_status: "error" }), NOW)).toBe(`failed at ${at}`);
    expect(lastWords(job({ last_run_at, last_status: "skipped" }), NOW)).toBe(`was skipped at ${at}`);
  });

  test("a late one says when it was due", () => {
    const late = job({
      last_run_at: "2026-11-24T09:30:00Z",
      last_status: "ok",
      late: true,
      late_for: "2026-11-24T07:00:00Z",
    });
    expect(lastWords(late, NOW)).toContain(`late: it was due at ${moment("2026-11-24T07:00:00Z", NOW)}`);
  });
});

test("what ran once and is gone says when, and whether that was late", () => {
  const done = {
    id: "1",
    name: "Tea",
    due_at: "2026-11-24T07:00:00Z",
    began_at: "2026-11-24T09:30:00Z",
    late: false,
  };
  expect(doneWords(done, NOW)).toBe(`ran at ${moment(done.began_at, NOW)}`);
  expect(doneWords({ ...done, late: true }, NOW)).toContain(
    `late: it was due at ${moment(done.due_at, NOW)}`,
  );
});

test("a heartbeat tells what it costs, and that it is off", () => {
  const schedule = (heartbeat: Schedule["heartbeat"]): Schedule => ({
    jobs: [],
    done: [],
    next_run_at: null,
    left_out: 0,
    read_at: null,
    heartbeat,
  });
  expect(heartbeatWords(schedule({ on: false, turns_per_day: 0 }))).toContain("off");
  expect(heartbeatWords(schedule({ on: true, turns_per_day: 48 }))).toContain("48 turns a day");
});
