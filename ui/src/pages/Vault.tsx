/** What one has stored: keys, tokens, notes. Values go in; one comes out to who has just proved who they are. */
import { useState } from "preact/hooks";
import { refreshAgent } from "../agent";
import { api } from "../api";
import { useShown } from "../components/attempt";
import { Problem } from "../components/Problem";
import { Rooms } from "../components/Rooms";
import { Imported } from "../components/vault/Imported";
import { Item } from "../components/vault/Item";
import { NewItem } from "../components/vault/NewItem";

export function Vault() {
  const shown = useShown(async () => (await api.vaultItems()).items);
  const { value: items, problem } = shown;
  /** Counts: what was shown goes with each. */
  const [locked, setLocked] = useState(0);
  const attempt = async (work: () => Promise<unknown>) => {
    const well = await shown.attempt(work);
    void refreshAgent();
    return well;
  };
  return (
    <Rooms>
      <Imported onUnlocked={() => void shown.attempt()} />
      <section class="card" aria-labelledby="vault-items">
        <h2 id="vault-items">What is stored</h2>
        <Problem words={problem} />
        {items?.length === 0 && <p>Nothing yet. Store a key of a model provider to talk to its model.</p>}
        <ul class="rows" key={locked}>
          {items?.map((item) => (
            <Item key={item.name} item={item} problem={problem} attempt={attempt} />
          ))}
        </ul>
        {items && items.length > 0 && (
          <button
            type="button"
            class="button"
            onClick={() => void shown.attempt(api.lockVault).then((well) => well && setLocked(locked + 1))}
          >
            Lock
          </button>
        )}
        <p class="muted">
          Locked, nothing is shown before you have proved anew that it is you. Everything is stored encrypted
          under a key of your own. The platform can open what it must use: the key of your model, for each
          call of your agent. Your agent never sees it. Whoever runs this server, with its master key and its
          database, could read what is here.
        </p>
      </section>
      <section class="card" aria-labelledby="vault-new">
        <h2 id="vault-new">Store something</h2>
        <NewItem attempt={attempt} />
      </section>
    </Rooms>
  );
}
