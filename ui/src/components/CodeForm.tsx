/** Asks for a code of the second factor; below it stand the other ways, given as children. */
import type { ComponentChildren } from "preact";
import { Problem } from "./Problem";

interface Props {
  code: string;
  onCode: (code: string) => void;
  problem: string | null;
  onSend: () => void;
  wide?: boolean;
  children: ComponentChildren;
}

export function CodeForm({ code, onCode, problem, onSend, wide = false, children }: Props) {
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        onSend();
      }}
    >
      <label>
        Code of your authenticator app, or a backup code
        <input
          name="code"
          autoComplete="one-time-code"
          required
          placeholder="123456"
          value={code}
          onInput={(event) => onCode(event.currentTarget.value)}
        />
      </label>
      <Problem words={problem} />
      <button type="submit" class={wide ? "button primary wide" : "button primary"}>
        Go on
      </button>
      {children}
    </form>
  );
}
