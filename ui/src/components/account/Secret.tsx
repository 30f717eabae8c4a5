/** Something that is shown once: to be copied before it is gone. */
import { CopyButton } from "../CopyButton";

interface Props {
  title: string;
  text: string;
  words: string;
}

export function Secret({ title, text, words }: Props) {
  return (
    <div class="secret" role="status" aria-label={title}>
      <strong>{title}</strong>
      <pre>{text}</pre>
      <p class="muted">{words}</p>
      <CopyButton text={text} />
    </div>
  );
}
