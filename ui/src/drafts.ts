/** What was typed and not sent, for each conversation, for as long as the tab lives. */

const PREFIX = "ocmt.draft.";
const key = (conversation: string | null) => `${PREFIX}${conversation ?? "new"}`;

export function readDraft(conversation: string | null): string {
  try {
    return sessionStorage.getItem(key(conversation)) ?? "";
  } catch {
    return "";
  }
}

/** Storage may be full or switched off: a draft is then kept by the text box alone. */
export function keepDraft(conversation: string | null, text: string): void {
  try {
    if (text) sessionStorage.setItem(key(conversation), text);
    else sessionStorage.removeItem(key(conversation));
  } catch {
    // Nothing to be done, and nothing lost that is on the screen.
  }
}

/** Whoever signs in here next is not to read them. */
export function forgetDrafts(): void {
  try {
    for (const name of Object.keys(sessionStorage)) {
      if (name.startsWith(PREFIX)) sessionStorage.removeItem(name);
    }
  } catch {
    // Switched off: there are none.
  }
}
