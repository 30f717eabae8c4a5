/** Who may write to the agent over a channel: let in by the code that they were told, or by their name in the list. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import type { ChannelSender } from "../../types";
import type { Shown } from "../attempt";
import { Loading } from "../Loading";
import { OneLine } from "../OneLine";
import { Problem } from "../Problem";

const WORDS: Record<ChannelSender["state"], string> = {
  pending: "waits to be let in",
  approved: "may write",
  blocked: "blocked",
};

/** Who waits comes first. */
const STATES = Object.keys(WORDS) as ChannelSender["state"][];

interface Props {
  channelId: string;
  name: string;
  senders: Shown<ChannelSender[]>;
  /** Somebody was let in: what they said before goes on. */
  onChange: () => void;
}

export function Senders({ channelId, name, senders, onChange }: Props) {
  const [told, setTold] = useState("");
  const { value: known, problem, attempt } = senders;
  const sorted = STATES.flatMap((state) => known?.filter((one) => one.state === state) ?? []);
  const nobody = known !== null && !known.some((one) => one.state === "approved");
  const change = async (work: () => Promise<string>) => {
    setTold("");
    const well = await attempt(async () => setTold(await work()));
    if (well) onChange();
    return well;
  };
  return (
    <section class="card" aria-labelledby="channel-senders">
      <h2 id="channel-senders">Who may write</h2>
      {nobody && (
        <p>
          Nobody yet. Write to {name}: you are told a code. Enter it here, and what you wrote is answered.
        </p>
      )}
      <OneLine
        label="Code"
        placeholder="ABCD-EFGH"
        maxLength={20}
        action="Let them in"
        primary={nobody}
        onSubmit={(code) =>
          change(async () => `${nameOf(await api.letIn(channelId, { code }))} may write from now on.`)
        }
      />
      <Problem words={problem} />
      <p role="status" class={told ? "told" : "visually-hidden"}>
        {told}
      </p>
      {known === null && problem === null && <Loading />}
      <ul class="rows" hidden={sorted.length === 0}>
        {sorted.map((one) => (
          <li key={one.sender} class="stored" aria-label={nameOf(one)}>
            <span>
              {nameOf(one)}{" "}
              <span class="muted">
                {one.name && `${one.sender}, `}
                {WORDS[one.state]} since {moment(one.updated_at, serverNow())}
              </span>
            </span>
            <Choices
              one={one}
              onApprove={() =>
                void change(async () => {
                  await api.letIn(channelId, { sender: one.sender });
                  return `${nameOf(one)} may write from now on.`;
                })
              }
              onBlock={() =>
                void change(async () => {
                  await api.blockSender(channelId, one.sender);
                  return `${nameOf(one)} is blocked.`;
                })
              }
              onForget={() =>
                void change(async () => {
                  await api.forgetSender(channelId, one.sender);
                  return `${nameOf(one)} is forgotten, and a stranger the next time.`;
                })
              }
            />
          </li>
        ))}
      </ul>
    </section>
  );
}

const nameOf = (one: ChannelSender) => one.name || one.sender;

interface ChoicesProps {
  one: ChannelSender;
  onApprove: () => void;
  onBlock: () => void;
  onForget: () => void;
}

function Choices({ one, onApprove, onBlock, onForget }: ChoicesProps) {
  const choices = [
    one.state !== "approved" && { words: "Let in", act: onApprove },
    one.state !== "blocked" && { words: "Block", act: onBlock },
    { words: "Forget", act: onForget },
  ].filter((choice) => choice !== false);
  return (
    <span class="row choices-of-row">
      {choices.map(({ words, act }) => (
        <button
          key={words}
          type="button"
          class="link-button"
          aria-label={`${words} ${nameOf(one)}`}
          onClick={act}
        >
          {words}
        </button>
      ))}
    </span>
  );
}
