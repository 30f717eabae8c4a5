/** The vault that came from the former system: it opens by its old password or its twelve words, once. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { useShown } from "../attempt";
import { Problem } from "../Problem";

export function Imported({ onUnlocked }: { onUnlocked: () => void }) {
  const { value: vault, problem, attempt } = useShown(api.importedVault);
  const [by, setBy] = useState<"password" | "phrase">("password");
  const [secret, setSecret] = useState("");
  if (vault === null) return <Problem words={problem} />;
  if (!vault.there) return null;
  if (vault.unlocked_at) {
    return <p class="muted">Your former vault was unlocked {moment(vault.unlocked_at, serverNow())}.</p>;
  }
  const unlock = async () => {
    const well = await attempt(() =>
      by === "password" ? api.unlockVault(secret) : api.recoverVault(secret.trim().toLowerCase()),
    );
    setSecret("");
    if (well) onUnlocked();
  };
  const waits = vault.retry_at && Date.parse(vault.retry_at) > serverNow();
  return (
    <section class="card" aria-labelledby="vault-imported">
      <h2 id="vault-imported">Your former vault</h2>
      <p>
        It was moved here still locked, and nobody here can open it. Its old password, or its twelve words,
        unlock it once; what is in it is then among your items.
      </p>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void unlock();
        }}
      >
        <fieldset class="choices">
          <legend class="visually-hidden">Unlock by</legend>
          <label>
            <input type="radio" name="by" checked={by === "password"} onChange={() => setBy("password")} />
            <span>Its password</span>
          </label>
          <label>
            <input type="radio" name="by" checked={by === "phrase"} onChange={() => setBy("phrase")} />
            <span>Its twelve words</span>
          </label>
        </fieldset>
        <label>
          {by === "password" ? "Old password" : "Twelve words"}
          <input
            type="password"
            autoComplete="off"
            required
            maxLength={1000}
            value={secret}
            onInput={(event) => setSecret(event.currentTarget.value)}
          />
        </label>
        <Problem words={problem} />
        {waits && (
          <p class="muted">The next attempt is taken {moment(vault.retry_at ?? null, serverNow())}.</p>
        )}
        <button type="submit" class="button primary" disabled={secret === ""}>
          Unlock
        </button>
      </form>
    </section>
  );
}
