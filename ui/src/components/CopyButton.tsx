/** Copies a text, and says so; where the browser does not let it, it says that, and the text is there to be marked. */
import { useState } from "preact/hooks";

interface Props {
  text: string;
  /** What is copied, for who does not see what is beside it. */
  label?: string;
}

export function CopyButton({ text, label }: Props) {
  const [words, setWords] = useState("Copy");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setWords("Copied");
    } catch {
      setWords("Not allowed here: mark it and copy it");
    }
  };
  return (
    <button
      type="button"
      class="button"
      aria-label={label && `${words}: ${label}`}
      onClick={() => void copy()}
    >
      {words}
    </button>
  );
}
