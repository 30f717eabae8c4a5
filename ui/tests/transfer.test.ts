import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { sendFile } from "../src/transfer";

class FakeXMLHttpRequest {
  static latest: FakeXMLHttpRequest;
  readonly upload: { onprogress?: (event: object) => void } = {};
  onload: (() => void) | null = null;
  onerror: (() => void) | null = null;
  onabort: (() => void) | null = null;
  status = 0;
  responseText = "";
  private contentType = "";

  constructor() {
    FakeXMLHttpRequest.latest = this;
  }
  open(): void {}
  setRequestHeader(): void {}
  send(): void {}
  abort(): void {
    this.onabort?.();
  }
  getResponseHeader(name: string): string | null {
    return name === "content-type" ? this.contentType : null;
  }
  answer(status: number, contentType: string, text: string): void {
    Object.assign(this, { status, contentType, responseText: text });
    this.onload?.();
  }
}

const THERE = { id: "1", name: "a.txt", media_type: "text/plain", size: 1 };

describe("a file that is sent", () => {
  let parts: number[];
  let abort: AbortController;

  const send = () => sendFile(new File(["x"], "a.txt"), (part) => parts.push(part), abort.signal);
  const latest = () => FakeXMLHttpRequest.latest;

  beforeEach(() => {
    vi.stubGlobal("XMLHttpRequest", FakeXMLHttpRequest);
    parts = [];
    abort = new AbortController();
  });
  afterEach(() => {
    vi.unstubAllGlobals();
  });

  test("tells how far it is, and what the server has then", async () => {
    const sent = send();
    latest().upload.onprogress?.({ lengthComputable: true, loaded: 1, total: 4 });
    latest().upload.onprogress?.({ lengthComputable: false, loaded: 2, total: 0 });
    expect(parts).toEqual([0.25]);
    latest().answer(201, "application/json", JSON.stringify(THERE));
    expect(await sent).toEqual(THERE);
  });

  test("and refused is told in the server's words", async () => {
    const sent = send();
    latest().answer(413, "application/problem+json", JSON.stringify({ detail: "Too large." }));
    await expect(sent).rejects.toMatchObject({ status: 413, message: "Too large." });
  });

  test.each([
    ["a page", "text/html", "<!doctype html><title>Sign in to this network</title>"],
    ["nothing", "application/json", ""],
    ["half of it", "application/json", '{"id": "1"'],
    ["something else", "application/json", "null"],
    ["something else", "application/json", '{"ok": true}'],
  ])("has not reached the server when all seems well but the answer is %s", async (_, type, text) => {
    const sent = send();
    latest().answer(200, type, text);
    await expect(sent).rejects.toMatchObject({ code: "unreachable", retryable: true });
  });

  test("has not when the connection fails or it is aborted", async () => {
    const failed = send();
    latest().onerror?.();
    await expect(failed).rejects.toMatchObject({ code: "unreachable" });
    const aborted = send();
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: "unreachable" });
  });
});
