/** What came in and what became of it; and having it run again: one, some, or those of a time. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import {
  canRunAgain,
  deliveryNotes,
  deliveryWords,
  ENDED,
  replayedWords,
  STATE_WORDS,
  STATES,
} from "../../channels";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import type { DeliveryFacts, DeliveryState, ReplayAsked } from "../../types";
import { Loading } from "../Loading";
import { Problem } from "../Problem";
import type { DeliveryPages } from "./pages";
import { ReplayTime } from "./ReplayTime";

interface Props<T> {
  shown: DeliveryPages<T>;
  /** Null: whoever looks may only look. */
  onReplay: ((asked: ReplayAsked) => Promise<{ count: number }>) | null;
  /** Of whom it is, behind its time and state. */
  whose: (one: T) => ComponentChildren;
  /** What else can be done with it. */
  more?: (one: T, tell: (work: () => Promise<string>) => void) => ComponentChildren;
  /** Beside the choice of a state. */
  filter?: ComponentChildren;
  /** Whose alone are shown, and would run again. */
  of?: string | undefined;
  empty: string;
}

export function DeliveryList<T extends DeliveryFacts>(props: Props<T>) {
  const { shown, onReplay, empty } = props;
  const [selected, setSelected] = useState<string[]>([]);
  const [told, setTold] = useState("");
  const items = shown.value?.items ?? [];
  const ended = items.filter(canRunAgain).map((one) => one.id);
  const several = onReplay !== null && ended.length > 1;
  const chosen = ended.filter((id) => selected.includes(id));

  const tell = (work: () => Promise<string>) => {
    setTold("");
    return shown.attempt(async () => setTold(await work()));
  };
  const replay = (asked: ReplayAsked) =>
    tell(async () => {
      const { count } = (await onReplay?.(asked)) ?? { count: 0 };
      setSelected([]);
      return replayedWords(count);
    });
  const replayThese = (ids: string[]) => void replay({ ids, states: ENDED });

  return (
    <>
      <div class="form filters">
        <label>
          Show
          <select
            value={shown.state ?? ""}
            onChange={(event) => shown.choose((event.currentTarget.value || null) as DeliveryState | null)}
          >
            <option value="">All</option>
            {STATES.map((state) => (
              <option key={state} value={state}>
                {STATE_WORDS[state]}
              </option>
            ))}
          </select>
        </label>
        {props.filter}
      </div>
      <Problem words={shown.problem} />
      <p role="status" class={told ? "told" : "visually-hidden"}>
        {told}
      </p>
      {shown.value === null && shown.problem === null && <Loading />}
      {shown.value !== null && items.length === 0 && (
        <p class="muted">{shown.state === null ? empty : "There is nothing in this state."}</p>
      )}
      {several && (
        <div class="row selection">
          <label class="inline">
            <input
              type="checkbox"
              checked={chosen.length === ended.length}
              onChange={(event) => setSelected(event.currentTarget.checked ? ended : [])}
            />
            Select all of these
          </label>
          {chosen.length > 0 && (
            <button type="button" class="button small" onClick={() => replayThese(chosen)}>
              Run {chosen.length} again
            </button>
          )}
        </div>
      )}
      {/* Told to who does not see the list: what has come by itself, and what became of it. */}
      <p class="visually-hidden" aria-live="polite">
        {items[0] && `The latest: ${deliveryWords(items[0], serverNow())}`}
      </p>
      <ul class={several ? "rows deliveries selectable" : "rows deliveries"} hidden={items.length === 0}>
        {items.map((one) => (
          <Row
            key={one.id}
            one={one}
            whose={props.whose(one)}
            selected={chosen.includes(one.id)}
            onSelect={
              several && canRunAgain(one)
                ? (yes) => setSelected(yes ? [...chosen, one.id] : chosen.filter((id) => id !== one.id))
                : null
            }
            onReplay={onReplay && ended.includes(one.id) ? () => replayThese([one.id]) : null}
          >
            {props.more?.(one, (work) => void tell(work))}
          </Row>
        ))}
      </ul>
      {shown.value?.next_cursor && (
        <button type="button" class="button" onClick={shown.more}>
          Show more
        </button>
      )}
      {onReplay && <ReplayTime onReplay={replay} of={props.of} />}
    </>
  );
}

interface RowProps {
  one: DeliveryFacts & { next_at?: string; last_error?: DeliveryFacts["error"] };
  whose: ComponentChildren;
  selected: boolean;
  onSelect: ((yes: boolean) => void) | null;
  /** Null: it cannot run again now. */
  onReplay: (() => void) | null;
  children: ComponentChildren;
}

function Row({ one, whose, selected, onSelect, onReplay, children }: RowProps) {
  const now = serverNow();
  const at = moment(one.received_at, now);
  const notes = deliveryNotes(one);
  const error = one.error ?? one.last_error;
  const bad = one.state === "dead" || one.dead > 0;
  return (
    <li class="item delivery" aria-label={`${deliveryWords(one, now)}, ${at}`}>
      {onSelect && (
        <input
          type="checkbox"
          aria-label={`Select the message of ${at}`}
          checked={selected}
          onChange={(event) => onSelect(event.currentTarget.checked)}
        />
      )}
      <div class="delivery-words">
        <div>
          <strong class={bad ? "bad" : undefined}>{deliveryWords(one, now)}</strong>{" "}
          <span class="muted">
            {at}, {whose}
          </span>
        </div>
        {error && <p class={bad ? "problem" : "muted"}>{error.message}</p>}
        {notes.length > 0 && <p class="muted">{notes.join("; ")}</p>}
        <div class="row">
          {children}
          {onReplay && (
            <button
              type="button"
              class="link-button"
              aria-label={`Run the message of ${at} again`}
              onClick={onReplay}
            >
              Run again
            </button>
          )}
        </div>
      </div>
    </li>
  );
}
