/** The providers' keys that a group shares with its members' agents. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import type { Group } from "../../types";
import { ProviderChoice } from "../vault/ProviderChoice";
import { labelOf, PROVIDER_KEYS } from "../vault/words";

interface Props {
  group: Group;
  change: (work: () => Promise<unknown>) => Promise<boolean>;
}

export function SharedKeys({ group, change }: Props) {
  const [name, setName] = useState<string>(PROVIDER_KEYS[0].name);
  const [value, setValue] = useState("");
  const leads = group.role === "admin";
  return (
    <>
      <h3>Shared keys</h3>
      {group.key_names.length === 0 && <p class="muted">None. Each member's agent uses its user's own.</p>}
      <ul class="rows">
        {group.key_names.map((key) => (
          <li key={key} class="stored">
            <span>{labelOf(key)}</span>
            {leads && (
              <button
                type="button"
                class="link-button"
                aria-label={`Stop sharing the ${labelOf(key)}`}
                onClick={() => void change(() => api.unshareKey(group.id, key))}
              >
                Stop sharing
              </button>
            )}
          </li>
        ))}
      </ul>
      {leads && (
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            void change(() => api.shareKey(group.id, name, value.trim())).then(
              (well) => well && setValue(""),
            );
          }}
        >
          <ProviderChoice label="Share a key" name={name} onChoose={setName} />
          <label>
            The key
            <input
              type="password"
              autoComplete="off"
              spellcheck={false}
              required
              value={value}
              onInput={(event) => setValue(event.currentTarget.value)}
            />
          </label>
          <button type="submit" class="button" disabled={value.trim() === ""}>
            Share
          </button>
          <p class="muted">Nobody can read it here again, and no agent sees it.</p>
        </form>
      )}
    </>
  );
}
