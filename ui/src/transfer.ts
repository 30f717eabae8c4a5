/** One file on its way to the server. Not by `fetch`, which does not say how far it is. */
import { api, faultOf, unreachable } from "./api";
import { learnServerTime } from "./clock";
import type { Attachment } from "./types";

/** For the slowest connection on which anybody would wait for 16 MB. */
const TIMEOUT_MS = 1_800_000;

/** `onProgress` gets the part that is sent, from 0 to 1. Raises: ApiError, also when it is aborted. */
export function sendFile(
  file: File,
  onProgress: (part: number) => void,
  signal: AbortSignal,
): Promise<Attachment> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", api.newAttachmentUrl(file.name));
    request.timeout = TIMEOUT_MS;
    request.setRequestHeader("accept", "application/json");
    // A form of another site could send a text; it could not send this.
    request.setRequestHeader("x-ocmt-request", "1");
    request.setRequestHeader("content-type", file.type || "application/octet-stream");
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      learnServerTime(request.getResponseHeader("date"));
      const fault = faultOf(request.status, request.getResponseHeader("content-type"), request.responseText);
      const sent = fault ? null : attachmentOf(request.responseText);
      if (sent) resolve(sent);
      else reject(fault ?? unreachable());
    };
    request.onerror = request.ontimeout = request.onabort = () => reject(unreachable());
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/** What the server says it has now; null: something between us and it has answered in its place. */
function attachmentOf(text: string): Attachment | null {
  try {
    const said: Attachment | null = JSON.parse(text);
    return typeof said?.id === "string" ? said : null;
  } catch {
    return null;
  }
}
