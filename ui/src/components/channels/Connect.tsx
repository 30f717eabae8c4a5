/** Connecting a channel: which one, what to do there before, what to fill in here. */
import { useState } from "preact/hooks";
import { api, wordsFor } from "../../api";
import type { ChannelKind, OpenedChannel } from "../../types";
import { Problem } from "../Problem";
import { Fields } from "./Fields";
import { Steps } from "./Steps";

interface Props {
  kinds: ChannelKind[];
  onOpened: (opened: OpenedChannel) => void;
}

export function Connect({ kinds, onOpened }: Props) {
  const [chosen, setChosen] = useState<ChannelKind | null>(null);
  return (
    <section class="card" aria-labelledby="channels-connect">
      <h2 id="channels-connect">Connect a channel</h2>
      <p class="muted">Write to your agent from elsewhere, and have its answers there. A message wakes it.</p>
      <fieldset class="kinds">
        <legend class="visually-hidden">Which one</legend>
        {kinds.map((kind) => (
          <label key={kind.channel}>
            <input
              type="radio"
              name="kind"
              checked={kind.channel === chosen?.channel}
              onChange={() => setChosen(kind)}
            />
            <span>{kind.label}</span>
          </label>
        ))}
      </fieldset>
      {chosen && <Guide key={chosen.channel} kind={chosen} onOpened={onOpened} />}
    </section>
  );
}

function Guide({ kind, onOpened }: { kind: ChannelKind; onOpened: Props["onOpened"] }) {
  const [values, setValues] = useState<Record<string, string>>({});
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const connect = async () => {
    setProblem(null);
    setBusy(true);
    try {
      onOpened(await api.connectChannel(kind.channel, values));
    } catch (error) {
      setProblem(wordsFor(error));
      setBusy(false);
    }
  };
  return (
    <>
      {kind.before && kind.before.length > 0 && (
        <>
          <h3>First</h3>
          <Steps steps={kind.before} />
        </>
      )}
      <h3>Then fill in</h3>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy) void connect();
        }}
      >
        <Fields kind={kind} values={values} onValues={setValues} />
        <Problem words={problem} />
        <button type="submit" class="button primary" aria-busy={busy}>
          {busy ? "Connecting…" : `Connect ${kind.label}`}
        </button>
      </form>
      <p class="muted">Stored encrypted. Your agent never sees it.</p>
    </>
  );
}
