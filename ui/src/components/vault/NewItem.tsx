/** Stores something in the vault, or puts a new value in the place of one that is there. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import type { VaultItem } from "../../types";
import { ProviderChoice } from "./ProviderChoice";
import { KIND_WORDS, PROVIDER_KEYS } from "./words";

const KINDS = Object.entries(KIND_WORDS) as [VaultItem["kind"], string][];

export function NewItem({ attempt }: { attempt: (work: () => Promise<unknown>) => Promise<boolean> }) {
  const [kind, setKind] = useState<VaultItem["kind"]>("provider_key");
  const [provider, setProvider] = useState<string>(PROVIDER_KEYS[0].name);
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  const isKey = kind === "provider_key";
  const store = async () => {
    const to = isKey ? provider : name.trim();
    if (!(await attempt(() => api.putVaultItem(to, isKey ? value.trim() : value, kind)))) return;
    setName("");
    setValue("");
  };
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void store();
      }}
    >
      <label>
        What it is
        <select value={kind} onChange={(event) => setKind(event.currentTarget.value as VaultItem["kind"])}>
          {KINDS.map(([each, words]) => (
            <option key={each} value={each}>
              {words}
            </option>
          ))}
        </select>
      </label>
      {isKey ? (
        <ProviderChoice label="Provider" name={provider} onChoose={setProvider} />
      ) : (
        <label>
          Name
          <input
            required
            maxLength={64}
            pattern="[a-z0-9_]+"
            title="Small letters, digits and _"
            placeholder="github_token"
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
      )}
      <label for="vault-value">Value</label>
      {kind === "note" ? (
        <textarea
          id="vault-value"
          rows={5}
          required
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      ) : (
        <input
          id="vault-value"
          type="password"
          autoComplete="off"
          spellcheck={false}
          required
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      )}
      <button type="submit" class="button primary" disabled={value.trim() === ""}>
        Store
      </button>
      <p class="muted">A name that is there already gets a new version; ten former values are kept.</p>
    </form>
  );
}
