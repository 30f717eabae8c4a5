/** How much of each store one keeps, and how much one may. */
import { useEffect, useState } from "preact/hooks";
import { api, wordsFor } from "../api";
import { serverNow } from "../clock";
import { count, moment, size } from "../format";
import type { StorageUse } from "../types";
import { Problem } from "./Problem";

const NAMES: Record<StorageUse["store"], string> = {
  conversations: "Conversations",
  deliveries: "Received over channels",
  attachments: "Files sent with messages",
  snapshots: "Saved files of your agent",
};

const WAYS_OUT: Record<StorageUse["store"], string> = {
  conversations: "Delete conversations that you do not need.",
  deliveries: "Delete what has ended from the lists of your channels, or disconnect channels.",
  attachments: "Delete conversations with files that you do not need.",
  snapshots: "Older snapshots go first. To keep more of them, delete files of your agent.",
};

const UNITS: Record<StorageUse["store"], [one: string, many: string]> = {
  conversations: ["conversation", "conversations"],
  deliveries: ["message", "messages"],
  attachments: ["file", "files"],
  snapshots: ["snapshot", "snapshots"],
};

const NEARLY_FULL = 0.9;

export function StorageCard() {
  const [stores, setStores] = useState<StorageUse[] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    api.usage().then(
      (report) => setStores(report.storage),
      (error) => setProblem(wordsFor(error)),
    );
  }, []);
  return (
    <section class="card" aria-labelledby="settings-storage">
      <h2 id="settings-storage">Storage</h2>
      <Problem words={problem} />
      {stores?.map((one) => (
        <StoreMeter key={one.store} one={one} />
      ))}
      {stores && <p class="muted">If you need more room, ask your administrator for a larger plan.</p>}
    </section>
  );
}

function StoreMeter({ one }: { one: StorageUse }) {
  const ofItems = one.most_count === null ? 0 : one.count / one.most_count;
  const full = Math.max(ofItems, one.bytes / one.most_bytes) >= NEARLY_FULL;
  return (
    <div>
      <label class="meter">
        <span>
          {NAMES[one.store]}: {size(one.bytes)} of {size(one.most_bytes)}
          {one.most_count !== null &&
            ` · ${one.count.toLocaleString()} of ${count(one.most_count, ...UNITS[one.store])}`}
        </span>
        <progress value={Math.min(one.bytes, one.most_bytes)} max={one.most_bytes} />
      </label>
      {full && <p class="problem">Nearly full. {WAYS_OUT[one.store]}</p>}
      {one.refused_at && (
        <p class="muted">
          Something was last refused for want of room: {moment(one.refused_at, serverNow())}.
        </p>
      )}
    </div>
  );
}
