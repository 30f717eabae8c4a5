/** Where the agent can be written to besides here: what is connected, connecting more, and each one by itself. */
import { useEffect, useState } from "preact/hooks";
import { api } from "../api";
import { serverNow } from "../clock";
import { useShown } from "../components/attempt";
import { Connect } from "../components/channels/Connect";
import { Detail } from "../components/channels/Detail";
import { Loading } from "../components/Loading";
import { Problem } from "../components/Problem";
import { Rooms } from "../components/Rooms";
import { moment } from "../format";
import { channelPath, navigate } from "../router";
import type { Channel, ChannelKind, OpenedChannel } from "../types";

export function Channels({ id }: { id: string | null }) {
  // Read anew with each page of it: what could not be read on one is there on the next.
  const { value: known, problem, attempt } = useShown(api.channels, id);
  const [opened, setOpened] = useState<OpenedChannel | null>(null);
  const justNow = opened?.id === id ? opened : null;
  // Its secret is told this once: it is shown even if the list cannot be read now.
  const chosen = known?.items.find((one) => one.id === id) ?? justNow;
  // Who goes elsewhere and comes back does not find the secret again.
  useEffect(() => setOpened((one) => (one?.id === id ? one : null)), [id]);
  const open = (one: OpenedChannel) => {
    setOpened(one);
    navigate(channelPath(one.id));
  };
  return (
    <Rooms>
      {id !== null && (
        <nav class="back" aria-label="Back">
          <a href="/channels" data-route>
            ← All channels
          </a>
        </nav>
      )}
      <Problem words={problem} />
      {known === null && problem === null && <Loading />}
      {known && id === null && (
        <>
          {known.items.length > 0 && <List items={known.items} kinds={known.kinds} />}
          <Connect kinds={known.kinds} onOpened={open} />
        </>
      )}
      {chosen && (
        <Detail
          key={chosen.id}
          channel={chosen}
          kind={known?.kinds.find((kind) => kind.channel === chosen.channel)}
          opened={justNow}
          onChange={attempt}
          onOpened={setOpened}
        />
      )}
      {known && id !== null && !chosen && <p class="alone">There is no such channel.</p>}
    </Rooms>
  );
}

function List({ items, kinds }: { items: Channel[]; kinds: ChannelKind[] }) {
  return (
    <section class="card" aria-labelledby="channels-connected">
      <h2 id="channels-connected">Connected</h2>
      <ul class="rows">
        {items.map((one) => (
          <li key={one.id} class="stored">
            <a href={channelPath(one.id)} data-route>
              {one.name}
            </a>
            <span class="muted">
              {kinds.find((kind) => kind.channel === one.channel)?.label ?? one.channel},{" "}
              {one.active ? "since" : "switched off; connected"} {moment(one.created_at, serverNow())}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}
