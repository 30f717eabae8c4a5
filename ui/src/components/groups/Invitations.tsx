/** Whom a group's admins have asked to join. */
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import type { Group } from "../../types";
import { useShown } from "../attempt";
import { OneLine } from "../OneLine";
import { Problem } from "../Problem";

export function Invitations({ group }: { group: Group }) {
  const {
    value: open,
    problem,
    attempt,
  } = useShown(async () => (await api.openInvitations(group.id)).items, group.id);
  return (
    <>
      <h3>Invitations</h3>
      <Problem words={problem} />
      <ul class="rows">
        {open?.map((one) => (
          <li key={one.id} class="stored">
            <span>
              {one.email} <span class="muted">until {moment(one.expires_at, serverNow())}</span>
            </span>
            <button
              type="button"
              class="link-button"
              aria-label={`Withdraw the invitation of ${one.email}`}
              onClick={() => void attempt(() => api.withdrawInvitation(group.id, one.id))}
            >
              Withdraw
            </button>
          </li>
        ))}
      </ul>
      <OneLine
        label="Invite by e-mail"
        type="email"
        placeholder="ada@example.org"
        action="Invite"
        onSubmit={(email) => attempt(() => api.inviteToGroup(group.id, email))}
      />
    </>
  );
}
