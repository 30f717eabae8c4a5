/** Right after connecting: as whom, what to enter at the vendor, and the secret that is shown this once. */
import { useEffect, useRef } from "preact/hooks";
import type { ChannelKind, OpenedChannel } from "../../types";
import { Secret } from "../account/Secret";
import { Address } from "./Address";
import { Steps } from "./Steps";

export function Opened({ opened, kind }: { opened: OpenedChannel; kind: ChannelKind | undefined }) {
  const heading = useRef<HTMLHeadingElement>(null);
  // The form that was sent is gone, and the focus with it.
  useEffect(() => heading.current?.focus(), []);
  return (
    <section class="card opened" aria-labelledby="channel-opened">
      <h2 id="channel-opened" ref={heading} tabIndex={-1}>
        Connected as {opened.name}
      </h2>
      {opened.secret && (
        <Secret
          title="The secret"
          text={opened.secret}
          words="It is shown this once and never again: copy it now."
        />
      )}
      <Address url={opened.webhook_url} />
      {kind?.after && kind.after.length > 0 && (
        <>
          <h3>What comes next</h3>
          <Steps steps={kind.after} />
        </>
      )}
    </section>
  );
}
