/** "Prove once more that it is you": the dialog of `stepup.ts`. */
import { useState } from "preact/hooks";
import { ApiError, api, wordsFor } from "../api";
import { question } from "../stepup";
import { askPasskey, passkeysWork } from "../webauthn";
import { CodeForm } from "./CodeForm";
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
      <CodeForm
        code={code}
        onCode={setCode}
        problem={problem}
        onSend={() => void prove(() => api.stepUp(code))}
      >
        {passkeysWork() && (
          <button type="button" class="button" onClick={() => void proveByPasskey()}>
            Use a passkey
          </button>
        )}
        <p class="muted">{NO_FACTOR}</p>
      </CodeForm>
    </Dialog>
  );
}
