/** One item of the vault: what may be known of it, and what can be done with it. */
import { useState } from "preact/hooks";
import { api } from "../../api";
import { serverNow } from "../../clock";
import { count, moment } from "../../format";
import type { KeptVersion, VaultItem } from "../../types";
import { Secret } from "../account/Secret";
import { Confirm } from "../Dialog";
import { KIND_WORDS, labelOf } from "./words";

interface Props {
  item: VaultItem;
  problem: string | null;
  attempt: (work: () => Promise<unknown>) => Promise<boolean>;
}

export function Item({ item, problem, attempt }: Props) {
  const [value, setValue] = useState<string | null>(null);
  const [verdict, setVerdict] = useState<string | null>(null);
  const [versions, setVersions] = useState<KeptVersion[] | null>(null);
  const [removing, setRemoving] = useState(false);
  const { name } = item;
  const forget = () => {
    setValue(null);
    setVerdict(null);
    setVersions(null);
  };
  const look = async (work: () => Promise<unknown>) => {
    forget();
    await attempt(work);
  };
  return (
    <li class="item">
      <div>
        <strong>{labelOf(name)}</strong> {item.hint && <code>…{item.hint}</code>}
        <br />
        <span class="muted">
          {KIND_WORDS[item.kind]}, version {item.version} of {moment(item.updated_at, serverNow())};{" "}
          {item.last_used_at
            ? `used ${count(item.uses, "time", "times")}, last ${moment(item.last_used_at, serverNow())}`
            : "never used"}
        </span>
      </div>
      <div class="row">
        {item.kind === "provider_key" && (
          <button
            type="button"
            class="button small"
            aria-label={`Test ${labelOf(name)}`}
            onClick={() => void look(async () => setVerdict((await api.testVaultItem(name)).detail))}
          >
            Test
          </button>
        )}
        <button
          type="button"
          class="button small"
          aria-label={`Show ${labelOf(name)}`}
          onClick={() => void look(async () => setValue((await api.revealVaultItem(name)).value))}
        >
          Show
        </button>
        {item.version > 1 && (
          <button
            type="button"
            class="button small"
            aria-label={`Former values of ${labelOf(name)}`}
            onClick={() => void look(async () => setVersions((await api.vaultVersions(name)).items))}
          >
            Former values
          </button>
        )}
        <button
          type="button"
          class="button small"
          aria-label={`Remove ${labelOf(name)}`}
          onClick={() => setRemoving(true)}
        >
          Remove
        </button>
      </div>
      {verdict !== null && (
        <p role="status" aria-label={`What the provider says of ${labelOf(name)}`}>
          {verdict}
        </p>
      )}
      {value !== null && (
        <Secret title={labelOf(name)} text={value} words="It stays here until you leave this page." />
      )}
      {versions?.length === 0 && <p class="muted">No former value is kept.</p>}
      {versions?.map((kept) => (
        <p key={kept.version} class="stored">
          <span>
            Version {kept.version} <span class="muted">replaced {moment(kept.replaced_at, serverNow())}</span>
          </span>
          <button
            type="button"
            class="link-button"
            onClick={() => void look(() => api.restoreVaultVersion(name, kept.version))}
          >
            Bring back
          </button>
        </p>
      ))}
      {removing && (
        <Confirm
          title={`Remove ${labelOf(name)}`}
          text="It goes with all its former values, and your agent can no longer use it."
          action="Remove"
          problem={problem}
          onConfirm={() =>
            void attempt(() => api.deleteVaultItem(name)).then((well) => well && setRemoving(false))
          }
          onClose={() => setRemoving(false)}
        />
      )}
    </li>
  );
}
