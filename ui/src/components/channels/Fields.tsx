/** What is filled in to connect a channel of some kind; what must not be seen is not shown. */
import { isSecret } from "../../channels";
import type { ChannelKind } from "../../types";

interface Props {
  kind: ChannelKind;
  values: Record<string, string>;
  onValues: (values: Record<string, string>) => void;
}

export function Fields({ kind, values, onValues }: Props) {
  return Object.entries(kind.fields).map(([name, label]) => (
    <label key={name}>
      {kind.required.includes(name) ? label : `${label} (optional)`}
      <input
        // Preact's types know a password field only by this one word.
        {...(isSecret(name) ? { type: "password" as const } : {})}
        name={name}
        autoComplete="off"
        autoCapitalize="off"
        spellcheck={false}
        value={values[name] ?? ""}
        onInput={(event) => onValues({ ...values, [name]: event.currentTarget.value })}
      />
    </label>
  ));
}
