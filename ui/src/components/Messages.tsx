/** The turns of a conversation in a scrolling list that follows the end, unless the reader has scrolled away. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Conversation } from "../conversation";
import { isOpen } from "../events";
import { DownIcon, Spinner } from "./Icons";
import { PendingMessage, Turn } from "./Turn";

/** So near to the end counts as being there. */
const NEAR_PX = 60;

export function Messages({ conversation }: { conversation: Conversation }) {
  const { turns, pending, older } = conversation.state.value;
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const [away, setAway] = useState(false);

  const follow = () => {
    following.current = true;
    setAway(false);
    toEnd(scroller.current);
  };
  const onScroll = () => {
    const box = scroller.current;
    if (!box) return;
    following.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;
    setAway(!following.current);
  };

  useEffect(() => {
    const observer = new ResizeObserver(() => {
      if (following.current) toEnd(scroller.current);
    });
    if (scroller.current) observer.observe(scroller.current);
    if (content.current) observer.observe(content.current);
    return () => observer.disconnect();
  }, []);

  // One's own message is always shown.
  const lastKey = pending.at(-1)?.key;
  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when a message is added, and only then
  useLayoutEffect(() => {
    if (lastKey) follow();
  }, [lastKey]);

  const showOlder = async () => {
    const box = scroller.current;
    const fromEnd = box ? box.scrollHeight - box.scrollTop : 0;
    await conversation.loadOlder();
    requestAnimationFrame(() => {
      if (box) box.scrollTop = box.scrollHeight - fromEnd;
    });
  };

  const firstOpen = turns.findIndex(isOpen);
  return (
    <div class="messages-frame">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard */}
      <section class="messages" ref={scroller} onScroll={onScroll} tabIndex={0} aria-label="Conversation">
        <div class="messages-content" ref={content}>
          {conversation.loading.value === "loading" && turns.length === 0 && pending.length === 0 && (
            <p class="wait-line">
              <Spinner /> Loading the conversation…
            </p>
          )}
          {older !== null && (
            <button type="button" class="button small older" onClick={() => void showOlder()}>
              Show earlier messages
            </button>
          )}
          <ol class="turns">
            {turns.map((turn, index) => (
              <Turn
                key={turn.key}
                turn={turn}
                conversation={conversation}
                queued={firstOpen >= 0 && index > firstOpen}
              />
            ))}
            {pending.map((message) => (
              <PendingMessage key={message.key} message={message} conversation={conversation} />
            ))}
          </ol>
        </div>
      </section>
      {away && (
        <button type="button" class="jump" onClick={follow}>
          <DownIcon /> Jump to latest
        </button>
      )}
    </div>
  );
}

function toEnd(box: HTMLElement | null): void {
  if (box) box.scrollTop = box.scrollHeight;
}
