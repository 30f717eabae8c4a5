import { describe, expect, test } from "vitest";
import { savedWords, snapshotWords, waitingWords } from "../src/files";
import { moment, size } from "../src/format";
import type { FilesState, SnapshotPage } from "../src/types";

const NOW = Date.parse("2026-11-24T10:00:00Z");
const AT = "2026-11-24T09:30:00Z";

const files = (more: Partial<FilesState> = {}): FilesState => ({
  saved_at: AT,
  generation: 3,
  problem: null,
  ...more,
});

const page = (more: Partial<SnapshotPage> = {}): SnapshotPage => ({
  items: [],
  next_cursor: null,
  restore_asked: null,
  import_asked: false,
  ...more,
});

describe("whether the files are safe", () => {
  test("saved, or nothing yet", () => {
    expect(savedWords(files(), NOW)).toBe(`Saved at ${moment(AT, NOW)}.`);
    expect(savedWords(files({ saved_at: null, generation: null }), NOW)).toBe(
      "There is nothing to save yet.",
    );
  });

  test("not any more, since when, why, and what to do", () => {
    const problem = {
      code: "limit_reached",
      message: "There are more than the 200,000 files that your plan allows. Delete some.",
    };
    expect(savedWords(files({ problem }), NOW)).toBe(
      `Your files are not saved any more since ${moment(AT, NOW)}: ${problem.message}`,
    );
    expect(savedWords(files({ saved_at: null, problem }), NOW)).toBe(
      `Your files have never been saved: ${problem.message}`,
    );
  });
});

describe("a saved state", () => {
  test("how much it is", () => {
    const snapshot = { generation: 1, created_at: AT, image: null, files: 1, bytes: 3_500_000 };
    expect(snapshotWords(snapshot)).toBe(`1 file, ${size(3_500_000)}`);
    expect(size(0)).toBe("0 bytes");
    expect(size(1023)).toBe(`${(1023).toLocaleString()} bytes`);
    expect(size(1024)).toBe("1 KB");
    expect(size(5 * 1024 ** 3)).toBe("5 GB");
  });

  test("what waits for the next start", () => {
    expect(waitingWords(page())).toBeNull();
    expect(waitingWords(page({ restore_asked: 7 }))).toContain("State 7");
    expect(waitingWords(page({ import_asked: true }))).toContain("archive");
  });
});
