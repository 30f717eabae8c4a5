import { beforeEach, describe, expect, test, vi } from "vitest";
import { ApiError, unreachable } from "../src/api";
import type { Attachment } from "../src/types";
import { Uploads, type Ways } from "../src/uploads";

const MB = 1024 * 1024;

interface Answer {
  resolve: (attachment: Attachment) => void;
  reject: (error: Error) => void;
}

/** A server that answers when the test says so. */
class Server {
  readonly begun: string[] = [];
  readonly dropped: string[] = [];
  private readonly open = new Map<string, Answer>();
  private readonly progress = new Map<string, (part: number) => void>();

  readonly ways: Ways = {
    send: (file, onProgress, signal) => {
      this.begun.push(file.name);
      this.progress.set(file.name, onProgress);
      return new Promise((resolve, reject) => {
        this.open.set(file.name, { resolve, reject });
        signal.addEventListener("abort", () => reject(unreachable()));
      });
    },
    drop: async (id) => {
      this.dropped.push(id);
    },
    shrink: async (file) => (file.type === "image/heic" ? null : sized(file.name, MB, file.type)),
    preview: async () => null,
  };

  async has(name: string): Promise<void> {
    this.open.get(name)?.resolve({ id: `id-${name}`, name, media_type: "text/plain", size: 1 });
    await settled();
  }

  async refuses(name: string, error: ApiError): Promise<void> {
    this.open.get(name)?.reject(error);
    await settled();
  }

  sent(name: string, part: number): void {
    this.progress.get(name)?.(part);
  }
}

/** Says that it has so many bytes without having them. */
function sized(name: string, size: number, type = "text/plain"): File {
  const file = new File(["x"], name, { type });
  Object.defineProperty(file, "size", { value: size });
  return file;
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

let server: Server;
let uploads: Uploads;
const state = (name: string) => uploads.items.value.find((item) => item.name === name)?.state;
const keyOf = (name: string) => uploads.items.value.find((item) => item.name === name)?.key ?? "";

async function add(...files: File[]): Promise<void> {
  uploads.add(files);
  await settled();
}

beforeEach(() => {
  server = new Server();
  uploads = new Uploads(server.ways);
});

describe("files on their way", () => {
  test("two at a time, each with how far it is, and the message waits for all", async () => {
    await add(sized("a", 1), sized("b", 1), sized("c", 1));
    expect(server.begun).toEqual(["a", "b"]);
    expect(state("c")).toBe("waiting");
    server.sent("a", 0.5);
    expect(uploads.items.value[0]?.progress).toBe(0.5);
    await server.has("b");
    expect(server.begun).toEqual(["a", "b", "c"]);
    expect(uploads.unready.value).toContain("still on its way");
    await server.has("a");
    await server.has("c");
    expect(uploads.unready.value).toBeNull();
    expect(uploads.announcement.value).toBe("c is attached.");
  });

  test("are given to one message, in the order in which they were chosen", async () => {
    await add(sized("a", 1), sized("b", 1));
    await server.has("b");
    await server.has("a");
    expect(uploads.take().map((attachment) => attachment.id)).toEqual(["id-a", "id-b"]);
    expect(uploads.take()).toEqual([]);
  });

  test("that were sent with a refused message come back before those that were added since", async () => {
    await add(sized("a", 1));
    await server.has("a");
    const taken = uploads.take();
    await add(sized("b", 1));
    uploads.putBack(taken);
    expect(uploads.items.value.map((item) => item.name)).toEqual(["a", "b"]);
    expect(state("a")).toBe("there");
  });

  test("that are not taken in are told, and the others go", async () => {
    await add(sized("empty", 0), sized("a", 1));
    expect(uploads.problem.value).toBe("The file empty is empty.");
    expect(server.begun).toEqual(["a"]);
    await add(sized("b", 1));
    expect(uploads.problem.value).toBeNull();
  });
});

describe("a file that fails", () => {
  test("for want of a connection can be tried again", async () => {
    await add(sized("a", 1));
    await server.refuses("a", unreachable());
    expect(uploads.items.value[0]).toMatchObject({ state: "failed", mayRetry: true });
    expect(uploads.items.value[0]?.problem).toContain("does not answer");
    expect(uploads.unready.value).toContain("could not be uploaded");
    uploads.retry(keyOf("a"));
    await settled();
    expect(uploads.items.value[0]).toMatchObject({ state: "sending", problem: null });
    await server.has("a");
    expect(uploads.unready.value).toBeNull();
  });

  test("because the server cannot take it cannot", async () => {
    await add(sized("a", 1));
    await server.refuses("a", new ApiError(413, "too_large", "Too large.", false));
    expect(uploads.items.value[0]).toMatchObject({ problem: "Too large.", mayRetry: false });
  });

  test("because it is a folder is told so", async () => {
    const folder = sized("photos", 4096);
    vi.spyOn(folder, "slice").mockReturnValue({
      arrayBuffer: () => Promise.reject(new Error("NotReadableError")),
    } as unknown as Blob);
    await add(folder);
    expect(uploads.items.value[0]?.problem).toContain("choose the files in it");
    expect(server.begun).toEqual([]);
  });
});

describe("a file that is removed", () => {
  test("is removed from the server too", async () => {
    await add(sized("a", 1));
    await server.has("a");
    uploads.remove(keyOf("a"));
    expect(uploads.items.value).toEqual([]);
    expect(server.dropped).toEqual(["id-a"]);
  });

  test("on its way is not sent further, and the next one goes", async () => {
    await add(sized("a", 1), sized("b", 1), sized("c", 1));
    uploads.remove(keyOf("a"));
    await settled();
    expect(server.begun).toEqual(["a", "b", "c"]);
    expect(uploads.items.value.map((item) => item.name)).toEqual(["b", "c"]);
  });
});

describe("an image that is too large", () => {
  test("goes as a smaller copy", async () => {
    await add(sized("p.jpg", 20 * MB, "image/jpeg"));
    expect(uploads.items.value[0]).toMatchObject({ state: "sending", size: MB });
  });

  test("and that this browser cannot read is refused in plain words", async () => {
    await add(sized("p.heic", 8 * MB, "image/heic"));
    expect(uploads.items.value[0]).toMatchObject({ state: "failed", mayRetry: false });
    expect(uploads.items.value[0]?.problem).toContain("images of at most 6 MB");
  });

  test("whose copy does not fit beside the others is refused too", async () => {
    await add(sized("a", 15.5 * MB), sized("p.jpg", 8 * MB, "image/jpeg"));
    expect(state("p.jpg")).toBe("failed");
    expect(uploads.items.value[1]?.problem).toContain("one message takes 16 MB at most");
  });
});
