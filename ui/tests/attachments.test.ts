import { describe, expect, test } from "vitest";
import {
  type FileFacts,
  megabytes,
  nameOfCopy,
  pastesFiles,
  refusal,
  refusals,
  sameFiles,
  tooLargeImage,
} from "../src/attachments";

const MB = 1024 * 1024;
const file = (size: number, more: Partial<FileFacts> = {}): FileFacts => ({
  name: "a.pdf",
  type: "application/pdf",
  size,
  ...more,
});
const photo = (size: number) => file(size, { name: "p.jpg", type: "image/jpeg" });

describe("what goes with a message", () => {
  test.each([
    ["a file as large as a message may be", file(16 * MB), []],
    ["as much as fits beside others", file(6 * MB), [file(10 * MB)]],
    ["the tenth file", file(1), Array<FileFacts>(9).fill(file(1))],
    ["an image as large as the agent can look at", photo(6 * MB), []],
    ["a larger image, of which a smaller copy will go", photo(40 * MB), []],
    ["a file beside images that will be smaller", file(15 * MB), [photo(8 * MB), photo(9 * MB)]],
  ])("%s", (_, given, beside) => {
    expect(refusal(given, beside)).toBeNull();
  });

  test.each([
    ["an empty file", file(0), [], "The file a.pdf is empty."],
    ["the eleventh", file(1), Array<FileFacts>(10).fill(file(1)), "One message has at most 10 files."],
    [
      "one that is larger than a message",
      file(16 * MB + 1),
      [],
      "The file a.pdf is too large: with a message",
    ],
    [
      "what does not fit beside others",
      file(6 * MB + 1),
      [file(10 * MB)],
      "With a.pdf these files have 16.1 MB together; one message takes 16 MB at most.",
    ],
  ])("but not %s", (_, given, beside, words) => {
    expect(refusal(given, beside)).toContain(words);
  });

  test("of many refusals the first is told, and how many there are", () => {
    expect(refusals([])).toBeNull();
    expect(refusals(["No."])).toBe("No.");
    expect(refusals(["No.", "Neither."])).toBe("No. Another file was left out too.");
    expect(refusals(["No.", "Neither.", "Nor."])).toBe("No. 2 other files were left out too.");
  });

  test("a size is never said to be that which it exceeds", () => {
    expect([6 * MB, 6 * MB + 1, 17.14 * MB].map(megabytes)).toEqual(["6 MB", "6.1 MB", "17.2 MB"]);
    expect(tooLargeImage(photo(8 * MB))).toContain("has 8 MB; your agent can look at images of at most 6 MB");
  });
});

test("a smaller copy is called what it is", () => {
  expect(nameOfCopy("beach.JPEG", "image/jpeg")).toBe("beach.JPEG");
  expect(nameOfCopy("plan.v2.png", "image/webp")).toBe("plan.v2.webp");
  expect(nameOfCopy("plan.png", "image/jpeg")).toBe("plan.jpg");
  expect(nameOfCopy("scan", "image/jpeg")).toBe("scan.jpg");
  expect(nameOfCopy(".hidden", "image/webp")).toBe(".hidden.webp");
});

test.each([
  ["a screenshot", ["Files"], true],
  ["an image of a web page", ["text/html", "Files"], true],
  ["a file of a file manager", ["text/plain", "Files"], true],
  ["cells of a spreadsheet", ["text/plain", "text/html", "text/rtf", "Files"], false],
  ["text", ["text/plain", "text/html"], false],
])("pasting %s", (_, types, isFiles) => {
  expect(pastesFiles(types)).toBe(isFiles);
});

test("files are the same by their ids and their order", () => {
  const [a, b] = ["a", "b"].map((id) => ({ id, name: "x", media_type: "text/plain", size: 1 }));
  if (!a || !b) throw new Error("two were made");
  expect(sameFiles([], [])).toBe(true);
  expect(sameFiles([a, b], [{ ...a }, { ...b }])).toBe(true);
  expect(sameFiles([a, b], [b, a])).toBe(false);
  expect(sameFiles([a], [a, b])).toBe(false);
});
