/** Something that is shown once: to be copied before it is gone. */
import { useState } from "preact/hooks";

interface Props {
  title: string;
  text: string;
  words: string;
}

export function Secret({ title, text, words }: Props) {
  const [copied, setCopied] = useState(false);
  return (
    <div class="secret" role="status" aria-label={title}>
      <strong>{title}</strong>
      <pre>{text}</pre>
      <p class="muted">{words}</p>
      <button
        type="button"
        class="button"
        onClick={() => void navigator.clipboard.writeText(text).then(() => setCopied(true))}
      >
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}
