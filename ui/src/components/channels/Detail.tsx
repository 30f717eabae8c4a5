/** One channel: what it is, who may write there, what came in. It looks for news by itself. */
import { useEffect } from "preact/hooks";
import { api } from "../../api";
import { lookEvery } from "../../channels";
import { conversations, refreshConversations } from "../../conversations";
import { count } from "../../format";
import { chatPath } from "../../router";
import type { Channel, ChannelKind, Delivery, OpenedChannel } from "../../types";
import { useShown } from "../attempt";
import { usePoll } from "../hooks";
import { About } from "./About";
import { DeliveryList } from "./DeliveryList";
import { Opened } from "./Opened";
import { useDeliveries } from "./pages";
import { Senders } from "./Senders";

interface Props {
  channel: Channel;
  kind: ChannelKind | undefined;
  /** Where it was connected, or reconnected, just now. */
  opened: OpenedChannel | null;
  onChange: () => Promise<unknown>;
  onOpened: (opened: OpenedChannel) => void;
}

export function Detail({ channel, kind, opened, onChange, onOpened }: Props) {
  const { id } = channel;
  const senders = useShown(async () => (await api.senders(id)).items, id);
  const deliveries = useDeliveries((state, cursor) => api.deliveries(id, state, cursor), null, id);
  usePoll(
    () => Promise.all([senders.refresh(), deliveries.refresh()]),
    lookEvery(deliveries.value?.items ?? null, true),
  );
  const latest = deliveries.value?.items.find((one) => one.conversation_id)?.conversation_id;
  useEffect(() => {
    // It began a conversation of its own, of which the list beside the page does not know yet.
    if (latest && !conversations.peek()?.some((info) => info.id === latest)) void refreshConversations();
  }, [latest]);
  const pairs = kind?.pairs ?? true;
  const nameOf = (one: Delivery) =>
    senders.value?.find((each) => each.sender === one.sender)?.name || one.sender || "somebody";
  const about = (
    <About channel={channel} kind={kind} told={opened !== null} onChange={onChange} onOpened={onOpened} />
  );
  return (
    <>
      {opened && <Opened key={opened.updated_at} opened={opened} kind={kind} />}
      {!opened && about}
      {pairs && (
        <Senders
          channelId={id}
          name={channel.name}
          senders={senders}
          onChange={() => void deliveries.refresh()}
        />
      )}
      <section class="card" aria-labelledby="channel-deliveries">
        <h2 id="channel-deliveries">What came in</h2>
        <DeliveryList
          shown={deliveries}
          onReplay={(asked) => api.replay(id, asked)}
          whose={(one) => `from ${nameOf(one)}`}
          more={(one, tell) => (
            <>
              {one.conversation_id && (
                <a href={chatPath(one.conversation_id)} data-route>
                  Conversation
                </a>
              )}
              {one.dead > 0 && (
                <button
                  type="button"
                  class="link-button"
                  onClick={() => tell(async () => resentWords((await api.resend(id, one.id)).count))}
                >
                  Send the answer again
                </button>
              )}
            </>
          )}
          empty="Nothing yet. It appears here by itself."
        />
        {deliveries.value?.items.some((one) => one.finished_at) && (
          <button
            type="button"
            class="link-button"
            onClick={() => void deliveries.attempt(() => api.clearDeliveries(id))}
          >
            Delete everything that has ended from this list
          </button>
        )}
      </section>
      {/* Who has just connected it goes on to who may write. */}
      {opened && about}
    </>
  );
}

const resentWords = (many: number) =>
  many === 0
    ? "There was nothing to send again."
    : `${count(many, "message is", "messages are")} sent again.`;
