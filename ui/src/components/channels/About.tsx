/** What one channel is, and the ways to change that: its name, its registration at the vendor, its end. */
import { useState } from "preact/hooks";
import { api, wordsFor } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { navigate } from "../../router";
import type { Channel, ChannelKind, OpenedChannel } from "../../types";
import { Confirm, Dialog } from "../Dialog";
import { Problem } from "../Problem";
import { Address } from "./Address";
import { Fields } from "./Fields";
import { Steps } from "./Steps";

interface Props {
  channel: Channel;
  kind: ChannelKind | undefined;
  /** Whether its address and steps stand above already. */
  told: boolean;
  /** Something about it has changed. */
  onChange: () => Promise<unknown>;
  onOpened: (opened: OpenedChannel) => void;
}

export function About({ channel, kind, told, onChange, onOpened }: Props) {
  const [asking, setAsking] = useState<"name" | "reconnect" | "disconnect" | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const ask = (what: typeof asking) => {
    setProblem(null);
    setAsking(what);
  };
  const attempt = async (work: () => Promise<unknown>) => {
    if (busy) return;
    setProblem(null);
    setBusy(true);
    try {
      await work();
      setAsking(null);
      await onChange();
    } catch (error) {
      setProblem(wordsFor(error));
    } finally {
      setBusy(false);
    }
  };
  const dialog = { problem, busy, onClose: () => setAsking(null) };
  const label = kind?.label ?? channel.channel;
  return (
    <section class="card" aria-labelledby="channel-about">
      <h2 id="channel-about">{channel.name}</h2>
      <p>
        {label}, {channel.active ? "connected" : "switched off"}{" "}
        <span class="muted">since {moment(channel.created_at, serverNow())}</span>
      </p>
      {!channel.active && <p>What comes in there is turned away. Reconnect it to take it up again.</p>}
      {channel.settings.answers === false && (
        <p>No answer goes back over it. You find the answers in its conversations here.</p>
      )}
      {!told && (
        <details>
          <summary>How it is set up</summary>
          <div class="inside">
            <Address url={channel.webhook_url} />
            {kind?.after && <Steps steps={kind.after} />}
          </div>
        </details>
      )}
      <div class="row">
        <button type="button" class="button small" onClick={() => ask("name")}>
          Rename
        </button>
        <button type="button" class="button small" onClick={() => ask("reconnect")}>
          Reconnect
        </button>
        <button type="button" class="button small" onClick={() => ask("disconnect")}>
          Disconnect
        </button>
      </div>
      {asking === "name" && (
        <Rename
          {...dialog}
          name={channel.name}
          onName={(name) => void attempt(() => api.renameChannel(channel.id, name))}
        />
      )}
      {asking === "reconnect" && (
        <Reconnect
          {...dialog}
          kind={kind}
          title={`Reconnect ${channel.name}`}
          onValues={(values) =>
            void attempt(async () => onOpened(await api.reconnectChannel(channel.id, values)))
          }
        />
      )}
      {asking === "disconnect" && (
        <Confirm
          title={`Disconnect ${channel.name}?`}
          text="Nobody reaches your agent there any more. What came in and who was let in is forgotten, and answers that were not sent yet are not sent. The conversations stay."
          action={busy ? "Disconnecting…" : "Disconnect"}
          problem={problem}
          onConfirm={() =>
            void attempt(async () => {
              await api.disconnectChannel(channel.id);
              navigate("/channels");
            })
          }
          onClose={dialog.onClose}
        />
      )}
    </section>
  );
}

interface Asked {
  problem: string | null;
  busy: boolean;
  onClose: () => void;
}

function Rename({
  name,
  onName,
  problem,
  busy,
  onClose,
}: Asked & { name: string; onName: (name: string) => void }) {
  const [value, setValue] = useState(name);
  return (
    <Dialog title="Rename this channel" onClose={onClose}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          onName(value);
        }}
      >
        <label>
          Its name here
          <input
            required
            maxLength={100}
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        <Problem words={problem} />
        <button type="submit" class="button primary" disabled={busy || value.trim() === ""}>
          Rename
        </button>
      </form>
    </Dialog>
  );
}

interface ReconnectProps extends Asked {
  title: string;
  kind: ChannelKind | undefined;
  onValues: (values: Record<string, string>) => void;
}

function Reconnect({ title, kind, onValues, problem, busy, onClose }: ReconnectProps) {
  const [values, setValues] = useState<Record<string, string>>({});
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          onValues(values);
        }}
      >
        <p>Its webhook is registered anew. Fill in only what is another one now; the rest stays as it is.</p>
        {kind && <Fields kind={kind} values={values} onValues={setValues} />}
        <Problem words={problem} />
        <button type="submit" class="button primary" aria-busy={busy}>
          {busy ? "Reconnecting…" : "Reconnect"}
        </button>
      </form>
    </Dialog>
  );
}
