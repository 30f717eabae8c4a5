/** Who may make an account: the policy, the rules that add to it, and invitations by mail. */
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { useShown } from "../attempt";
import { OneLine } from "../OneLine";
import { Problem } from "../Problem";

const MODE_WORDS: Record<string, string> = {
  invitation: "Whom an administrator has added or invited may make an account.",
  allowlist: "Whom an administrator has added or invited, and who is listed here, may make an account.",
  approval: "Everybody may ask for an account; an administrator approves it.",
  open: "Everybody may make an account.",
};

export function SignUp({ mayChange }: { mayChange: boolean }) {
  const rules = useShown(api.signUpRules);
  const invitations = useShown(async () => (await api.invitations()).items);
  const open = invitations.value?.filter((one) => !one.accepted_at && !one.revoked_at) ?? [];
  return (
    <section class="card" aria-labelledby="admin-sign-up">
      <h2 id="admin-sign-up">Who may come in</h2>
      {rules.value && <p>{MODE_WORDS[rules.value.mode] ?? rules.value.mode}</p>}
      <Problem words={rules.problem} />
      <ul class="rows">
        {rules.value?.from_settings.map((each) => (
          <li key={each}>
            {each} <span class="muted">by OCMT_SIGN_UP_ALLOWED</span>
          </li>
        ))}
        {rules.value?.items.map((rule) => (
          <li key={rule.value} class="stored">
            <span>
              {rule.value} <span class="muted">{rule.kind}</span>
            </span>
            {mayChange && (
              <button
                type="button"
                class="link-button"
                aria-label={`Take ${rule.value} off the list`}
                onClick={() => void rules.attempt(() => api.dropSignUpRule(rule.kind, rule.value))}
              >
                Take off
              </button>
            )}
          </li>
        ))}
      </ul>
      {mayChange && (
        <OneLine
          label="List an address or a domain"
          maxLength={300}
          placeholder="example.org"
          action="List"
          onSubmit={(value) => {
            const kind = value.includes("@") ? "address" : "domain";
            return rules.attempt(() => api.putSignUpRule(kind, value.trim()));
          }}
        />
      )}
      <h3>Open invitations</h3>
      <Problem words={invitations.problem} />
      {open.length === 0 && <p class="muted">None.</p>}
      <ul class="rows">
        {open.map((one) => (
          <li key={one.id} class="stored">
            <span>
              {one.email}{" "}
              <span class="muted">
                as {one.role}; until {moment(one.expires_at, serverNow())}
              </span>
            </span>
            {mayChange && (
              <button
                type="button"
                class="link-button"
                aria-label={`Take back the invitation of ${one.email}`}
                onClick={() => void invitations.attempt(() => api.revokeInvitation(one.id))}
              >
                Take back
              </button>
            )}
          </li>
        ))}
      </ul>
      {mayChange && (
        <OneLine
          label="Invite by mail"
          type="email"
          placeholder="ada@example.org"
          action="Send the invitation"
          onSubmit={(email) => invitations.attempt(() => api.invite(email))}
        />
      )}
    </section>
  );
}
