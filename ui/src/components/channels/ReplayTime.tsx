/** Has what came in during some time run again: after an outage, for instance. */
import { useState } from "preact/hooks";
import { ENDED, STATE_WORDS } from "../../channels";
import type { DeliveryState, ReplayAsked } from "../../types";

interface Props {
  onReplay: (asked: ReplayAsked) => Promise<boolean>;
  /** Whose alone. */
  of: string | undefined;
}

export function ReplayTime({ onReplay, of }: Props) {
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  const [states, setStates] = useState<DeliveryState[]>(["dead"]);
  return (
    <details>
      <summary>Run a whole time again{of && `, of ${of} alone`}</summary>
      <form
        class="form inside"
        onSubmit={(event) => {
          event.preventDefault();
          const till = to ? { to: instant(to) } : {};
          void onReplay({ from: instant(from), ...till, states });
        }}
      >
        <div class="times">
          <label>
            From
            <input
              type="datetime-local"
              required
              value={from}
              onInput={(event) => setFrom(event.currentTarget.value)}
            />
          </label>
          <label>
            Until (left empty: now)
            <input
              type="datetime-local"
              min={from}
              value={to}
              onInput={(event) => setTo(event.currentTarget.value)}
            />
          </label>
        </div>
        <fieldset class="choices">
          <legend>Those in the state</legend>
          {ENDED.map((state) => (
            <label key={state} class="check">
              <input
                type="checkbox"
                checked={states.includes(state)}
                onChange={(event) =>
                  setStates(
                    event.currentTarget.checked
                      ? [...states, state]
                      : states.filter((other) => other !== state),
                  )
                }
              />
              {STATE_WORDS[state]}
            </label>
          ))}
        </fieldset>
        <p class="muted">What was answered before is answered once more.</p>
        <button type="submit" class="button" disabled={from === "" || states.length === 0}>
          Run them again
        </button>
      </form>
    </details>
  );
}

/** What is filled in is the time of whoever fills it in. */
const instant = (local: string) => new Date(local).toISOString();
