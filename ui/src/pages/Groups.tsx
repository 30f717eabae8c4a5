/** The groups that one is in, what one is asked to join, and a new one. */
import { api } from "../api";
import { serverNow } from "../clock";
import { useShown } from "../components/attempt";
import { GroupCard } from "../components/groups/GroupCard";
import { OneLine } from "../components/OneLine";
import { Problem } from "../components/Problem";
import { Rooms } from "../components/Rooms";
import { moment } from "../format";

export function Groups() {
  const groups = useShown(async () => (await api.groups()).items);
  const asked = useShown(async () => (await api.groupInvitations()).items);
  const answer = async (id: string, yes: boolean) => {
    await asked.attempt(() => (yes ? api.acceptInvitation(id) : api.declineInvitation(id)));
    await groups.attempt();
  };
  return (
    <Rooms>
      <Problem words={asked.problem} />
      {asked.value && asked.value.length > 0 && (
        <section class="card" aria-labelledby="groups-asked">
          <h2 id="groups-asked">You are invited</h2>
          <ul class="rows">
            {asked.value.map((one) => (
              <li key={one.id} class="stored">
                <span>
                  {one.group_name}{" "}
                  <span class="muted">
                    as {one.role}; until {moment(one.expires_at, serverNow())}
                  </span>
                </span>
                <span class="row">
                  <button type="button" class="button small" onClick={() => void answer(one.id, true)}>
                    Join {one.group_name}
                  </button>
                  <button type="button" class="button small" onClick={() => void answer(one.id, false)}>
                    No, thanks
                  </button>
                </span>
              </li>
            ))}
          </ul>
        </section>
      )}
      <Problem words={groups.problem} />
      {groups.value?.map((group) => (
        <GroupCard key={group.id} group={group} onChange={() => void groups.attempt()} />
      ))}
      <section class="card" aria-labelledby="groups-new">
        <h2 id="groups-new">Make a group</h2>
        {groups.value?.length === 0 && <p>You are in no group yet.</p>}
        <p class="muted">
          Its admins can share a key of a model provider with the agents of all its members.
        </p>
        <OneLine
          label="Name of the new group"
          maxLength={100}
          placeholder="Research"
          action="Make it"
          primary
          onSubmit={(name) => groups.attempt(() => api.makeGroup(name))}
        />
      </section>
    </Rooms>
  );
}
