/** A secret of the user's vault: it can be put and removed here, and never comes back out. */
import { useEffect, useState } from "preact/hooks";
import { refreshAgent } from "../agent";
import { api, wordsFor } from "../api";
import { serverNow } from "../clock";
import { moment } from "../format";
import type { VaultItem } from "../types";
import { Confirm } from "./Dialog";
import { Problem } from "./Problem";

interface Props {
  name: string;
  label: string;
  placeholder: string;
}

export function KeyForm({ name, label, placeholder }: Props) {
  const [item, setItem] = useState<VaultItem | null>(null);
  const [value, setValue] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [saved, setSaved] = useState(false);
  const [removing, setRemoving] = useState(false);

  /** Whether it went well; if not, says why. */
  const attempt = async (work: () => Promise<unknown>): Promise<boolean> => {
    setProblem(null);
    setSaved(false);
    try {
      await work();
      const { items } = await api.vaultItems();
      setItem(items.find((each) => each.name === name) ?? null);
      return true;
    } catch (error) {
      setProblem(wordsFor(error));
      return false;
    }
  };

  // biome-ignore lint/correctness/useExhaustiveDependencies: once for each item
  useEffect(() => {
    void attempt(async () => {});
  }, [name]);

  const save = async () => {
    if (!(await attempt(() => api.putVaultItem(name, value.trim())))) return;
    setValue("");
    setSaved(true);
    void refreshAgent();
  };
  const remove = async () => {
    if (!(await attempt(() => api.deleteVaultItem(name)))) return;
    setRemoving(false);
    void refreshAgent();
  };

  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      {item && (
        <p class="stored">
          <span>
            {label} {item.hint && <code>…{item.hint}</code>}{" "}
            <span class="muted">stored {moment(item.updated_at, serverNow())}</span>
          </span>
          <button type="button" class="link-button" onClick={() => setRemoving(true)}>
            Remove
          </button>
        </p>
      )}
      <label>
        {item ? `Replace the ${label}` : label}
        <input
          type="password"
          autoComplete="off"
          spellcheck={false}
          required
          placeholder={placeholder}
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      </label>
      {!removing && <Problem words={problem} />}
      <div class="row">
        <button type="submit" class="button primary" disabled={value.trim() === ""}>
          Save
        </button>
        {saved && (
          <span class="muted" role="status" aria-label="Key">
            Saved. The next message uses it.
          </span>
        )}
      </div>
      <p class="muted">Stored encrypted. Your agent never sees it: the platform adds it to each call.</p>
      {removing && (
        <Confirm
          title={`Remove the ${label}`}
          text="Your agent will no longer be able to use it."
          action="Remove"
          problem={problem}
          onConfirm={() => void remove()}
          onClose={() => setRemoving(false)}
        />
      )}
    </form>
  );
}
