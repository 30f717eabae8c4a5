/** What was done by oneself or to one's account: the audit log, in words. */
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { usePages } from "../attempt";
import { Problem } from "../Problem";

const WORDS: Record<string, string> = {
  "api_key.made": "An API key was made",
  "api_key.revoked": "An API key was revoked",
  "deliveries.replayed": "Messages that had come in over channels were run again",
  "mfa.backup_code_used": "A backup code was used",
  "mfa.backup_codes_made": "New backup codes were made",
  "mfa.totp_added": "An authenticator app was set up",
  "mfa.totp_removed": "The authenticator app was turned off",
  "session.ended": "A browser was signed out",
  "session.impersonated": "An administrator looked through your eyes",
  "session.opened": "Signed in",
  "user.added": "The account was made",
  "user.changed": "Name or address was changed",
  "user.mfa_required": "The demand for a second factor was changed",
  "user.role": "The role was changed",
  "user.signed_up": "The account was made by signing up",
  "user.status": "The account was suspended, approved or let in again",
  "vault.data_key_rotated": "The key that seals your vault was changed",
  "vault.item_deleted": "Something was deleted from your vault",
  "vault.item_put": "Something was stored in your vault",
  "vault.item_restored": "A former value in your vault was brought back",
  "vault.item_revealed": "A value of your vault was shown",
  "vault.unlocked": "Your imported vault was unlocked",
};

/** What only the log of everybody tells. */
const OF_ALL: Record<string, string> = {
  "account.deleted": "An account was deleted",
  "audit.retained": "Old rows of this log were forgotten",
  "sign_up.rule_added": "A rule lets people in",
  "sign_up.rule_removed": "A rule was taken away",
  "user.invited": "Somebody was invited",
  "user.invitation_revoked": "An invitation was taken back",
};

export const wordsOf = (action: string) => WORDS[action] ?? OF_ALL[action] ?? action;

export function Trail() {
  const { value: rows, problem, more } = usePages(api.audit);
  return (
    <section class="card" aria-labelledby="settings-trail">
      <h2 id="settings-trail">What happened to your account</h2>
      <ul class="rows">
        {rows?.map((row) => (
          <li key={row.id}>
            {wordsOf(row.action)}{" "}
            <span class="muted">
              {moment(row.at, serverNow())}
              {typeof row.details?.address === "string" && `, from ${row.details.address}`}
              {typeof row.details?.reason === "string" && `: ${row.details.reason}`}
            </span>
          </li>
        ))}
      </ul>
      <Problem words={problem} />
      {more && (
        <button type="button" class="button" onClick={more}>
          Show more
        </button>
      )}
    </section>
  );
}
