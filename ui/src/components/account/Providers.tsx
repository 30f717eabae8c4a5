/** By which accounts at other providers one can sign in; connecting and disconnecting them. */
import { useEffect, useState } from "preact/hooks";
import { api, wordsFor } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { startOf, takeFragment, wordsForCode } from "../../providers";
import { goAway } from "../../returning";
import { ensureProof } from "../../stepup";
import type { ProviderAccount, SignInProvider } from "../../types";
import { Problem } from "../Problem";

export function Providers() {
  const [offered, setOffered] = useState<SignInProvider[]>([]);
  const [accounts, setAccounts] = useState<ProviderAccount[]>([]);
  const [problem, setProblem] = useState<string | null>(null);
  const [connected, setConnected] = useState<string | null>(null);
  const look = async (work: () => Promise<unknown> = async () => {}) => {
    try {
      await work();
      setOffered((await api.providers()).oidc);
      setAccounts((await api.providerAccounts()).items);
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: once
  useEffect(() => {
    const code = takeFragment("error");
    if (code !== null) setProblem(wordsForCode(code));
    setConnected(takeFragment("linked"));
    void look();
  }, []);
  const connect = async (id: string) => {
    setProblem(null);
    try {
      await ensureProof();
      location.assign(startOf(id, true));
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  if (offered.length === 0 && accounts.length === 0 && problem === null) return null;
  const label = offered.find((one) => one.id === connected)?.label;
  return (
    <section class="card" aria-labelledby="settings-providers">
      <h2 id="settings-providers">Sign in by</h2>
      <Problem words={problem} />
      {label && <p role="status">From now on you can sign in with {label}.</p>}
      <ul class="rows">
        {accounts.map((one) => (
          <li key={one.id} class="stored">
            <span>
              {one.label}{" "}
              <span class="muted">
                {one.email},{" "}
                {one.last_used_at ? `last used ${moment(one.last_used_at, serverNow())}` : "not used yet"}
              </span>
            </span>
            <button
              type="button"
              class="link-button"
              aria-label={`Disconnect ${one.label}, ${one.email}`}
              onClick={() => {
                setProblem(null);
                setConnected(null);
                void look(() => api.disconnectProvider(one.id));
              }}
            >
              Disconnect
            </button>
          </li>
        ))}
      </ul>
      {offered.map((one) => (
        <button key={one.id} type="button" class="button" onClick={() => void connect(one.id)}>
          Connect {one.label}
        </button>
      ))}
    </section>
  );
}

/** One button for each provider, below the form of the sign-in page. */
export function ProviderButtons() {
  const [offered, setOffered] = useState<SignInProvider[]>([]);
  useEffect(() => {
    // Without an answer there is still the link by mail.
    api.providers().then(
      (found) => setOffered(found.oidc),
      () => {},
    );
  }, []);
  return (
    <>
      {offered.map((one) => (
        <a key={one.id} class="button wide" href={startOf(one.id)} onClick={goAway}>
          Sign in with {one.label}
        </a>
      ))}
    </>
  );
}
