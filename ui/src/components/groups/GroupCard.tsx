/** One group: who is in it, what it shares; and for its admins the ways to change that. */
import { useState } from "preact/hooks";
import { refreshAgent } from "../../agent";
import { api } from "../../api";
import { session } from "../../session";
import type { Group, Member } from "../../types";
import { useShown } from "../attempt";
import { Confirm } from "../Dialog";
import { Problem } from "../Problem";
import { Invitations } from "./Invitations";
import { SharedKeys } from "./SharedKeys";

export function GroupCard({ group, onChange }: { group: Group; onChange: () => void }) {
  const { value: members, problem, attempt } = useShown(() => allMembers(group.id), group.id);
  const [asking, setAsking] = useState<"leave" | "delete" | null>(null);
  const [name, setName] = useState(group.name);
  const own = session.value.state === "signed-in" ? session.value.user.id : "";
  const leads = group.role === "admin";
  const change = async (work: () => Promise<unknown>) => {
    const well = await attempt(work);
    if (well) onChange();
    return well;
  };
  /** What ends one's membership: there is nothing of the group left to be read. */
  const end = async () => {
    const work =
      asking === "delete" ? () => api.deleteGroup(group.id) : () => api.removeMember(group.id, own);
    try {
      await work();
      onChange();
      void refreshAgent();
    } catch (error) {
      await attempt(() => Promise.reject(error));
    }
  };
  return (
    <section class="card" aria-label={group.name}>
      <h2>{group.name}</h2>
      {group.description && <p>{group.description}</p>}
      {asking === null && <Problem words={problem} />}
      <ul class="rows">
        {members?.map((member) => (
          <li key={member.user_id} class="stored">
            <span>
              {member.name ? `${member.name}, ${member.email}` : member.email}{" "}
              <span class="muted">{member.role}</span>
            </span>
            {leads && member.user_id !== own && (
              <MemberChoices group={group} member={member} change={change} />
            )}
          </li>
        ))}
      </ul>
      <SharedKeys group={group} change={change} />
      {leads && <Invitations group={group} />}
      {leads && (
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            void change(() => api.renameGroup(group, name));
          }}
        >
          <label>
            Its name
            <input
              required
              maxLength={100}
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          </label>
          <button type="submit" class="button" disabled={name.trim() === "" || name === group.name}>
            Rename
          </button>
        </form>
      )}
      <div class="row">
        <button type="button" class="button" onClick={() => setAsking("leave")}>
          Leave
        </button>
        {leads && (
          <button type="button" class="button" onClick={() => setAsking("delete")}>
            Delete the group
          </button>
        )}
      </div>
      {asking !== null && (
        <Confirm
          title={asking === "leave" ? `Leave ${group.name}` : `Delete ${group.name}`}
          text={
            asking === "leave"
              ? "Your agent can no longer use what the group shares, at once."
              : "It ends for all its members, with what it shares."
          }
          action={asking === "leave" ? "Leave" : "Delete"}
          problem={problem}
          onConfirm={() => void end()}
          onClose={() => setAsking(null)}
        />
      )}
    </section>
  );
}

interface Choices {
  group: Group;
  member: Member;
  change: (work: () => Promise<unknown>) => Promise<boolean>;
}

function MemberChoices({ group, member, change }: Choices) {
  const other = member.role === "admin" ? "member" : "admin";
  return (
    <span class="row">
      <button
        type="button"
        class="link-button"
        onClick={() => void change(() => api.setMemberRole(group.id, member.user_id, other))}
      >
        Make {other}
      </button>
      <button
        type="button"
        class="link-button"
        aria-label={`Remove ${member.email}`}
        onClick={() => void change(() => api.removeMember(group.id, member.user_id))}
      >
        Remove
      </button>
    </span>
  );
}

async function allMembers(groupId: string): Promise<Member[]> {
  const found: Member[] = [];
  let next: string | null = null;
  do {
    const page = await api.members(groupId, next);
    found.push(...page.items);
    next = page.next;
  } while (next !== null);
  return found;
}
