/** The second factor: set up an authenticator app by its QR code, backup codes, and taking it away. */
import { useEffect, useState } from "preact/hooks";
import { api, wordsFor } from "../../api";
import { findSession } from "../../session";
import type { MfaState, TotpBegun } from "../../types";
import { Problem } from "../Problem";
import { Secret } from "./Secret";

export function SecondFactor() {
  const [state, setState] = useState<MfaState | null>(null);
  const [begun, setBegun] = useState<TotpBegun | null>(null);
  const [code, setCode] = useState("");
  const [codes, setCodes] = useState<string[]>([]);
  const [problem, setProblem] = useState<string | null>(null);

  const attempt = async (work: () => Promise<unknown>) => {
    setProblem(null);
    try {
      await work();
      setState(await api.mfa());
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: once
  useEffect(() => {
    void attempt(async () => {});
  }, []);

  const begin = () => attempt(async () => setBegun(await api.beginTotp()));
  const confirm = () =>
    attempt(async () => {
      setCodes((await api.confirmTotp(code)).codes);
      setBegun(null);
      setCode("");
      await findSession();
    });
  const renew = () => attempt(async () => setCodes((await api.newBackupCodes()).codes));
  const remove = () =>
    attempt(async () => {
      await api.removeTotp();
      setCodes([]);
    });

  return (
    <section class="card" aria-labelledby="settings-mfa">
      <h2 id="settings-mfa">Second factor</h2>
      {state && !state.totp && !begun && (
        <>
          <p>
            {state.demanded && <strong>Your administrator asks for one: set it up first. </strong>}
            With an authenticator app, nobody signs in with your mail alone.
          </p>
          <button type="button" class="button primary" onClick={() => void begin()}>
            Set up an authenticator app
          </button>
        </>
      )}
      {begun && (
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            void confirm();
          }}
        >
          <p>Scan this with your app, or type the key into it. Then write the code that it shows.</p>
          <img
            class="qr"
            alt="QR code for your authenticator app"
            src={`data:image/svg+xml,${encodeURIComponent(begun.qr_svg)}`}
          />
          <code class="totp-secret">{begun.secret}</code>
          <label>
            Code
            <input
              name="totp"
              autoComplete="one-time-code"
              inputMode="numeric"
              required
              placeholder="123456"
              value={code}
              onInput={(event) => setCode(event.currentTarget.value)}
            />
          </label>
          <button type="submit" class="button primary">
            Turn it on
          </button>
        </form>
      )}
      {codes.length > 0 && (
        <Secret
          title="Your backup codes"
          text={codes.join("\n")}
          words="Each works once, if you have lost your app. They are shown this once: keep them apart from it."
        />
      )}
      {state?.totp && (
        <>
          <p>
            An authenticator app is asked for at every sign-in. {state.backup_codes} backup codes are left.
          </p>
          <div class="row">
            <button type="button" class="button" onClick={() => void renew()}>
              New backup codes
            </button>
            <button type="button" class="button danger" onClick={() => void remove()}>
              Turn it off
            </button>
          </div>
        </>
      )}
      <Problem words={problem} />
    </section>
  );
}
