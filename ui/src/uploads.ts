/**
 * The files that go with the next message of a conversation: taken in, uploaded, and then sent or removed.
 *
 * They are on the server before the message is. Like drafts they outlive a look at another page, but no reload:
 * what the server has and no message takes is gone there after a day.
 */
import { computed, effect, signal } from "@preact/signals";
import { ApiError, api, wordsFor } from "./api";
import { type FileFacts, isToBeShrunk, refusal, refusals, tooLargeImage } from "./attachments";
import { preview, shrink } from "./pictures";
import { session } from "./session";
import { sendFile } from "./transfer";
import type { Attachment } from "./types";

/** A browser has six connections for each host, and the page needs some for itself. */
const AT_ONCE = 2;

/** `shrinking` and `sending` are under way, `there` is on the server. */
export type UploadState = "waiting" | "shrinking" | "sending" | "there" | "failed";

export interface Upload extends FileFacts {
  key: string;
  state: UploadState;
  /** The part that is sent, from 0 to 1. */
  progress: number;
  /** Why it failed, in words for the user, and whether another try may go better. */
  problem: string | null;
  mayRetry: boolean;
  /** A small copy as a URL; null: there is none, or not yet. */
  preview: string | null;
  attachment: Attachment | null;
}

/** What is done with files, so that a test can do something else. */
export interface Ways {
  send: typeof sendFile;
  drop: (id: string) => Promise<void>;
  shrink: typeof shrink;
  preview: typeof preview;
}

const WAYS: Ways = { send: sendFile, drop: api.dropAttachment, shrink, preview };

export class Uploads {
  readonly items = signal<readonly Upload[]>([]);
  /** Why files were not taken in, in words for the user. */
  readonly problem = signal<string | null>(null);
  /** What to announce to a screen reader. */
  readonly announcement = signal("");
  /** Why the message cannot be sent yet; null: as far as its files go, it can. */
  readonly unready = computed(() => {
    const states = this.items.value.map((item) => item.state);
    if (states.includes("failed")) return "A file could not be uploaded. Try again with it, or remove it.";
    if (states.some((state) => state !== "there"))
      return "A file is still on its way. Send the message when it is there.";
    return null;
  });

  private readonly files = new Map<string, File>();
  private readonly underWay = new Map<string, AbortController>();
  private previews: Promise<void> = Promise.resolve();

  constructor(private readonly ways: Ways = WAYS) {}

  add(files: readonly File[]): void {
    const reasons: string[] = [];
    for (const file of files) {
      const reason = refusal(file, this.items.value);
      if (reason !== null) {
        reasons.push(reason);
        continue;
      }
      const item = { ...BLANK, key: crypto.randomUUID(), name: file.name, type: file.type, size: file.size };
      this.files.set(item.key, file);
      this.items.value = [...this.items.value, item];
      // One after the other: a photo of twelve megapixels takes fifty megabytes while it is decoded.
      this.previews = this.previews.then(() => this.draw(item.key, file));
    }
    this.problem.value = refusals(reasons);
    this.advance();
  }

  retry(key: string): void {
    this.change(key, { state: "waiting", problem: null, progress: 0 });
    this.advance();
  }

  /** Takes it away, on the server too. */
  remove(key: string): void {
    const item = this.find(key);
    this.problem.value = null;
    this.items.value = this.items.value.filter((other) => other.key !== key);
    this.files.delete(key);
    this.underWay.get(key)?.abort();
    // Best effort: the server removes it by itself in the end.
    if (item?.attachment) this.ways.drop(item.attachment.id).catch(() => {});
    this.advance();
  }

  /** Gives all that are there to a message, in their order. */
  take(): Attachment[] {
    const taken = this.items.value.flatMap((item) => item.attachment ?? []);
    this.items.value = [];
    this.files.clear();
    this.problem.value = null;
    return taken;
  }

  /** Takes those of a message back that was not sent. */
  putBack(attachments: readonly Attachment[]): void {
    const items = attachments.map((attachment): Upload => {
      const { id, name, media_type: type, size } = attachment;
      return { ...BLANK, key: id, name, type, size, state: "there", attachment, preview: previewOf(id) };
    });
    this.items.value = [...items, ...this.items.value];
  }

  /** Lets go of everything without telling the server. */
  forget(): void {
    this.items.value = [];
    this.files.clear();
    this.problem.value = null;
    for (const controller of this.underWay.values()) controller.abort();
  }

  /** Begins with as many as may be under way at once. */
  private advance(): void {
    for (const item of this.items.value) {
      if (this.underWay.size >= AT_ONCE) return;
      if (item.state === "waiting" && !this.underWay.has(item.key)) void this.upload(item.key);
    }
  }

  private async upload(key: string): Promise<void> {
    const controller = new AbortController();
    this.underWay.set(key, controller);
    try {
      const file = await this.prepared(key);
      if (!file || controller.signal.aborted) return;
      this.change(key, { state: "sending" });
      const sent = await this.ways.send(
        file,
        (progress) => this.change(key, { progress }),
        controller.signal,
      );
      this.arrived(key, sent);
    } catch (error) {
      // The server will say the same again of what it cannot take.
      const final = error instanceof ApiError && (error.status === 400 || error.status === 413);
      this.fail(key, wordsFor(error), !final);
    } finally {
      this.underWay.delete(key);
      this.advance();
    }
  }

  /** The file as it is to be sent; null: it cannot be, and its item says why. */
  private async prepared(key: string): Promise<File | null> {
    const file = this.files.get(key);
    if (!file) return null;
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      this.fail(key, `${file.name} cannot be read. Of a folder, choose the files in it.`, true);
      return null;
    }
    if (!isToBeShrunk(file)) return file;
    this.change(key, { state: "shrinking" });
    const copy = await this.ways.shrink(file);
    const beside = this.items.value.filter((item) => item.key !== key);
    const reason = copy ? refusal(copy, beside) : tooLargeImage(file);
    if (!copy || reason !== null) {
      this.fail(key, reason ?? "", false);
      return null;
    }
    this.files.set(key, copy);
    this.change(key, { name: copy.name, type: copy.type, size: copy.size });
    return copy;
  }

  private arrived(key: string, attachment: Attachment): void {
    if (!this.find(key)) {
      // Removed when it was there already, and before we heard of it.
      this.ways.drop(attachment.id).catch(() => {});
      return;
    }
    const { name, media_type: type, size } = attachment;
    this.change(key, { state: "there", attachment, name, type, size });
    this.files.delete(key);
    this.notePreview(key);
    this.announcement.value = `${name} is attached.`;
  }

  private fail(key: string, problem: string, mayRetry: boolean): void {
    this.change(key, { state: "failed", problem, mayRetry });
  }

  private async draw(key: string, file: File): Promise<void> {
    if (!this.find(key)) return;
    this.change(key, { preview: await this.ways.preview(file) });
    this.notePreview(key);
  }

  private notePreview(key: string): void {
    const item = this.find(key);
    if (item?.attachment && item.preview) previews.set(item.attachment.id, item.preview);
  }

  private find(key: string): Upload | undefined {
    return this.items.value.find((item) => item.key === key);
  }

  private change(key: string, change: Partial<Upload>): void {
    this.items.value = this.items.value.map((item) => (item.key === key ? { ...item, ...change } : item));
  }
}

const BLANK = {
  state: "waiting",
  progress: 0,
  problem: null,
  mayRetry: false,
  preview: null,
  attachment: null,
} as const;

/** Of what was uploaded from this tab: it need not be downloaded to be shown. */
const previews = new Map<string, string>();

export const previewOf = (id: string): string | null => previews.get(id) ?? null;

const NEW = "new";
const kept = new Map<string, Uploads>();

/** Those of this conversation, or of the one that begins with the next message. */
export function uploadsOf(conversation: string | null): Uploads {
  const key = conversation ?? NEW;
  const uploads = kept.get(key) ?? new Uploads();
  kept.set(key, uploads);
  return uploads;
}

/** The new conversation has got its id. */
export function moveUploads(conversation: string, uploads: Uploads): void {
  if (kept.get(NEW) === uploads) kept.delete(NEW);
  kept.set(conversation, uploads);
}

// Whoever signs in here next is not to send them.
effect(() => {
  if (session.value.state !== "signed-out") return;
  for (const uploads of kept.values()) uploads.forget();
  kept.clear();
  previews.clear();
});
