/** One's passkeys: made by this device, called something, removed. */
import { useEffect, useState } from "preact/hooks";
import { ApiError, api, wordsFor } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { findSession } from "../../session";
import type { Passkey } from "../../types";
import { makePasskey, passkeysWork } from "../../webauthn";
import { Problem } from "../Problem";
import { deviceOf } from "./Sessions";

export function Passkeys() {
  const [passkeys, setPasskeys] = useState<Passkey[]>([]);
  const [problem, setProblem] = useState<string | null>(null);
  const attempt = async (work: () => Promise<unknown>) => {
    setProblem(null);
    try {
      await work();
      setPasskeys((await api.passkeys()).items);
    } catch (error) {
      setProblem(
        error instanceof ApiError
          ? wordsFor(error)
          : "This device made no passkey. Try again, or another one.",
      );
    }
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: once
  useEffect(() => {
    void attempt(async () => {});
  }, []);
  const add = () =>
    attempt(async () => {
      const { options } = await api.passkeyRegistration();
      await api.addPasskey(deviceOf(navigator.userAgent), await makePasskey(options));
      await findSession();
    });
  return (
    <section class="card" aria-labelledby="settings-passkeys">
      <h2 id="settings-passkeys">Passkeys</h2>
      <p class="muted">
        Sign in by your fingerprint, face or device PIN: nothing to type, and nothing to steal.
      </p>
      <ul class="rows">
        {passkeys.map((one) => (
          <li key={one.id} class="stored">
            <span>
              {one.name}{" "}
              <span class="muted">
                {one.last_used_at ? `last used ${moment(one.last_used_at, serverNow())}` : "never used"}
              </span>
            </span>
            <button
              type="button"
              class="link-button"
              onClick={() => void attempt(() => api.removePasskey(one.id))}
            >
              Remove
            </button>
          </li>
        ))}
      </ul>
      <Problem words={problem} />
      {passkeysWork() && (
        <button type="button" class="button" onClick={() => void add()}>
          Add a passkey of this device
        </button>
      )}
    </section>
  );
}
