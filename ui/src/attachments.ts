/**
 * What can be sent with a message: the server's limits in the server's words, so that nothing is uploaded in vain.
 * Pure.
 */
import type { Attachment } from "./types";

const MB = 1024 * 1024;
export const MAX_FILES = 10;
/** Of one message's files together, in bytes. */
export const MAX_TOGETHER = 16 * MB;
export const MAX_IMAGE = 6 * MB;

/** Which the server lets a browser show; all else is downloaded. */
const SHOWN = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

/** What a browser's `File` says of itself. */
export interface FileFacts {
  name: string;
  type: string;
  size: number;
}

export const isImage = (type: string): boolean => type.startsWith("image/");

export const isShown = (attachment: Attachment): boolean => SHOWN.has(attachment.media_type);

/** An image that goes only if a smaller copy of it can be made. */
export const isToBeShrunk = (file: FileFacts): boolean => isImage(file.type) && file.size > MAX_IMAGE;

/** Why this file cannot go with a message that has those already; null: it can. */
export function refusal(file: FileFacts, beside: readonly FileFacts[]): string | null {
  if (file.size === 0) return `The file ${file.name} is empty.`;
  if (beside.length >= MAX_FILES)
    return `One message has at most ${MAX_FILES} files. Send the rest with another one.`;
  if (isToBeShrunk(file)) return null;
  if (file.size > MAX_TOGETHER)
    return (
      `The file ${file.name} is too large: with a message you can send ${megabytes(MAX_TOGETHER)}. ` +
      "Put a larger one into the workspace."
    );
  const total = bytes(beside) + file.size;
  if (total > MAX_TOGETHER)
    return (
      `With ${file.name} these files have ${megabytes(total)} together; one message takes ` +
      `${megabytes(MAX_TOGETHER)} at most. Send it with another one, or put it into the workspace.`
    );
  return null;
}

/** For an image of which no smaller copy could be made. */
export function tooLargeImage(file: FileFacts): string {
  return (
    `The image ${file.name} has ${megabytes(file.size)}; your agent can look at images of at most ` +
    `${megabytes(MAX_IMAGE)}. Send a smaller copy.`
  );
}

/** For files of which some were refused: the first reason, and how many there are. */
export function refusals(reasons: readonly string[]): string | null {
  const [first, ...others] = reasons;
  if (first === undefined) return null;
  if (others.length === 0) return first;
  return `${first} ${others.length === 1 ? "Another file was" : `${others.length} other files were`} left out too.`;
}

/** What an image's smaller copy is called: its ending says what it is now. */
export function nameOfCopy(name: string, type: string): string {
  const ending = type === "image/webp" ? "webp" : "jpg";
  const dot = name.lastIndexOf(".");
  const stem = dot > 0 ? name.slice(0, dot) : name;
  const same = ending === "jpg" && /\.jpe?g$/i.test(name);
  return same ? name : `${stem}.${ending}`;
}

/**
 * Whether what is pasted is its files. Office programs put a picture of the text beside the text: then the text is
 * meant. A file manager gives the name as text, a browser the image's markup, but neither gives both.
 */
export function pastesFiles(types: readonly string[]): boolean {
  return types.includes("Files") && !(types.includes("text/plain") && types.includes("text/html"));
}

/** Whether these are the same files in the same order. */
export function sameFiles(these: readonly Attachment[], those: readonly Attachment[]): boolean {
  return these.length === those.length && these.every((each, index) => each.id === those[index]?.id);
}

/** "6 MB", "17.2 MB"; rounded up, so that it is never "16 MB of 16 MB". */
export function megabytes(size: number): string {
  return `${Math.ceil((size / MB) * 10) / 10} MB`;
}

/** An image that is still to be shrunk does not count: nobody knows how large it will be. */
function bytes(files: readonly FileFacts[]): number {
  return files.reduce((sum, file) => sum + (isToBeShrunk(file) ? 0 : file.size), 0);
}
