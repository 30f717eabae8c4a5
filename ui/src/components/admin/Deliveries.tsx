/** What came in over everybody's channels: facts only, never what was said; and having it run again. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import { lookEvery } from "../../channels";
import { DeliveryList } from "../channels/DeliveryList";
import { useDeliveries } from "../channels/pages";
import { usePoll } from "../hooks";

export function Deliveries({ mayReplay }: { mayReplay: boolean }) {
  const [email, setEmail] = useState("");
  const shown = useDeliveries((state, cursor) => api.deliveriesOfAll(state, email, cursor), "dead", email);
  // Most of the time nothing is given up: an empty list is as it should be.
  usePoll(shown.refresh, lookEvery(shown.value?.items ?? null, false));
  return (
    <section class="card" aria-labelledby="admin-deliveries">
      <h2 id="admin-deliveries">What came in over channels</h2>
      <DeliveryList
        shown={shown}
        onReplay={mayReplay ? (asked) => api.replayOfAll(asked, email) : null}
        whose={(one) => (
          <>
            {one.channel} of {one.email} <code title={one.endpoint_id}>{one.endpoint_id.slice(0, 8)}</code>
          </>
        )}
        filter={
          <label>
            Of whom
            <input
              type="search"
              maxLength={1000}
              placeholder="ada@example.org"
              value={email}
              // When it is written out: half an address is nobody's.
              onChange={(event) => setEmail(event.currentTarget.value.trim())}
            />
          </label>
        }
        of={email || undefined}
        empty="Nothing yet."
      />
    </section>
  );
}
