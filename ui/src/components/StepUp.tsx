/** "Prove once more that it is you": the dialog of `stepup.ts`. */
import { useState } from "preact/hooks";
import { ApiError, api, wordsFor } from "../api";
import { question } from "../stepup";
import { askPasskey, passkeysWork } from "../webauthn";
import { Dialog } from "./Dialog";

const NO_FACTOR =
  "Without a second factor, sign out and in again by a new link: that counts for ten minutes.";

export function StepUp() {
  const [code, setCode] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const asked = question.value;
  if (asked === null) return null;
  const leave = () => {
    question.value = null;
    setCode("");
    setProblem(null);
  };
  const proveByPasskey = () =>
    prove(async () => {
      const { options } = await api.passkeyQuestion();
      await api.stepUpByPasskey(await askPasskey(options));
    });
  const prove = async (work: () => Promise<unknown>) => {
    setProblem(null);
    try {
      await work();
      leave();
      asked.proved();
    } catch (error) {
      setCode("");
      setProblem(wordsFor(error));
    }
  };
  return (
    <Dialog
      title="Is it you?"
      onClose={() => {
        leave();
        asked.given_up(new ApiError(403, "recent_sign_in_needed", "That takes a recent sign-in.", false));
      }}
    >
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void prove(() => api.stepUp(code));
        }}
      >
        <label>
          Code of your authenticator app, or a backup code
          <input
            name="code"
            autoComplete="one-time-code"
            required
            value={code}
            onInput={(event) => setCode(event.currentTarget.value)}
          />
        </label>
        {problem && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        <button type="submit" class="button primary">
          Go on
        </button>
        {passkeysWork() && (
          <button type="button" class="button" onClick={() => void proveByPasskey()}>
            Use a passkey
          </button>
        )}
        <p class="muted">{NO_FACTOR}</p>
      </form>
    </Dialog>
  );
}
