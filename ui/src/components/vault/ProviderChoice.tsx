/** Which provider a key is of. */
import { PROVIDER_KEYS } from "./words";

interface Props {
  label: string;
  name: string;
  onChoose: (name: string) => void;
}

export function ProviderChoice({ label, name, onChoose }: Props) {
  return (
    <label>
      {label}
      <select value={name} onChange={(event) => onChoose(event.currentTarget.value)}>
        {PROVIDER_KEYS.map((key) => (
          <option key={key.name} value={key.name}>
            {key.label}
          </option>
        ))}
      </select>
    </label>
  );
}
