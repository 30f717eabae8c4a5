/** Sign-in by other providers: where the buttons lead, and what comes back in the address bar, in words. */

/** Pressed, it leads to the provider; `link` connects it to the account one is signed in to. */
export const startOf = (id: string, link = false) =>
  `/api/v1/auth/oidc/${encodeURIComponent(id)}/start${link ? "?link=1" : ""}`;

const WORDS: Record<string, string> = {
  already_linked: "That account opens another user's account here: disconnect it there first.",
  attempt_expired: "That took too long, or was begun in another browser. Try again.",
  awaits_approval: "Your account waits for an administrator's approval: you can sign in after that.",
  cancelled: "You did not sign in there.",
  email_unverified: "The provider does not vouch for your e-mail address. Verify it there, then try again.",
  limit_reached: "That was too often. Try again in a minute.",
  link_needed:
    "You have an account here already. Sign in by a link, then connect the provider under Settings.",
  not_admitted: "This account may not sign in: ask your administrator.",
  provider_rejected: "The provider did not take our request: your administrator finds the reason in the log.",
  provider_unavailable: "The provider does not answer as it should. Try again later.",
  recent_sign_in_needed: "Sign out and in again, then connect it within ten minutes.",
  second_factor_missing: "Your administrator asks for a second factor: set one up first.",
  token_invalid: "The provider's answer does not prove who you are. Try again.",
};

/** What to say of a code that stood in the address bar; nothing of what stood there is repeated. */
export const wordsForCode = (code: string) =>
  (Object.hasOwn(WORDS, code) && WORDS[code]) || "That did not work. Try again.";

/** `name` out of `#name=value`, once, and the fragment leaves the address bar; null: it is not there. */
export function takeFragment(name: string): string | null {
  const value = new URLSearchParams(location.hash.slice(1)).get(name);
  if (value !== null) history.replaceState(null, "", location.pathname);
  return value;
}
