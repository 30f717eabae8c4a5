/** The files that go with the next message: how far each is, what went wrong with it, and how to be rid of it. */
import { useEffect, useRef } from "preact/hooks";
import { isImage } from "../attachments";
import { size } from "../format";
import type { Upload, Uploads } from "../uploads";
import { CloseIcon, FileIcon, PictureIcon, Spinner } from "./Icons";

interface Props {
  uploads: Uploads;
  /** One was removed, and with it the button that had the focus. */
  onRemoved: () => void;
}

export function AttachChips({ uploads, onRemoved }: Props) {
  const items = uploads.items.value;
  return (
    <>
      {items.length > 0 && (
        <ul class="attach-chips" aria-label="Files to send">
          {items.map((item) => (
            <Chip
              key={item.key}
              item={item}
              onRetry={() => uploads.retry(item.key)}
              onRemove={() => {
                uploads.remove(item.key);
                onRemoved();
              }}
            />
          ))}
        </ul>
      )}
      <div class="visually-hidden" aria-live="polite">
        {uploads.announcement.value}
      </div>
    </>
  );
}

function Chip({ item, onRetry, onRemove }: { item: Upload; onRetry: () => void; onRemove: () => void }) {
  const chip = useRef<HTMLLIElement>(null);
  const failed = item.state === "failed";
  // Of many, not all are in sight.
  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when it comes and when it fails
  useEffect(() => chip.current?.scrollIntoView({ block: "nearest" }), [failed]);
  return (
    <li ref={chip} class={`attach-chip ${item.state}`}>
      <span class="attach-thumb">
        {item.preview ? (
          <img src={item.preview} alt="" />
        ) : isImage(item.type) ? (
          <PictureIcon />
        ) : (
          <FileIcon />
        )}
      </span>
      <div class="attach-facts">
        <span class="attach-name" title={item.name}>
          {item.name}
        </span>
        {failed ? (
          <span class="attach-problem" role="alert">
            {item.problem}{" "}
            {item.mayRetry && (
              <button
                type="button"
                class="link-button"
                aria-label={`Try again: ${item.name}`}
                onClick={onRetry}
              >
                Try again
              </button>
            )}
          </span>
        ) : (
          <Progress item={item} />
        )}
      </div>
      <button
        type="button"
        class="icon-button small"
        aria-label={`Remove ${item.name}`}
        title="Remove"
        onClick={onRemove}
      >
        <CloseIcon />
      </button>
    </li>
  );
}

function Progress({ item }: { item: Upload }) {
  switch (item.state) {
    case "sending":
      // All of it is sent, and the server has not said yet that it has it: that takes it a moment.
      return item.progress < 1 ? (
        <progress value={item.progress} aria-label={`Uploading ${item.name}`} />
      ) : (
        <progress aria-label={`Uploading ${item.name}`} />
      );
    case "shrinking":
      return (
        <span class="muted">
          <Spinner /> Making it smaller…
        </span>
      );
    case "waiting":
      return <span class="muted">Waiting…</span>;
    default:
      return <span class="muted">{size(item.size)}</span>;
  }
}
