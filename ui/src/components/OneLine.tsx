/** A form of one line: something is named, and a button does it; it is empty again where that went well. */
import { useState } from "preact/hooks";

interface Props {
  label: string;
  action: string;
  /** Whether it went well. */
  onSubmit: (value: string) => Promise<boolean>;
  placeholder: string;
  type?: "email" | "text";
  maxLength?: number;
  primary?: boolean;
  /** Words below the button. */
  note?: string;
}

export function OneLine({ label, action, onSubmit, placeholder, type, maxLength, primary, note }: Props) {
  const [value, setValue] = useState("");
  // Preact's types know an e-mail field only by this one word.
  const typed = type === "email" ? { type: "email" as const } : {};
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void onSubmit(value).then((well) => well && setValue(""));
      }}
    >
      <label>
        {label}
        <input
          {...typed}
          required
          maxLength={maxLength}
          placeholder={placeholder}
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      </label>
      <button type="submit" class={primary ? "button primary" : "button"} disabled={value.trim() === ""}>
        {action}
      </button>
      {note && <p class="muted">{note}</p>}
    </form>
  );
}
