/** "Confirm it's you": the dialog of `stepup.ts`. It offers only what the account has. */
import { useEffect, useState } from "preact/hooks";
import { api, wordsFor } from "../api";
import { rememberPlace, signIns } from "../returning";
import { session } from "../session";
import { question } from "../stepup";
import type { WaysToProve } from "../types";
import { askPasskey, passkeysWork } from "../webauthn";
import { CodeForm } from "./CodeForm";
import { Dialog } from "./Dialog";
import { Spinner } from "./Icons";
import { Problem } from "./Problem";

export function StepUp() {
  const asked = question.value;
  if (asked === null) return null;
  const close = (end: () => void) => {
    question.value = null;
    end();
  };
  return (
    <Dialog title="Confirm it's you" onClose={() => close(asked.given_up)}>
      <Ways onProved={() => close(asked.proved)} />
    </Dialog>
  );
}

function Ways({ onProved }: { onProved: () => void }) {
  const [ways, setWays] = useState<WaysToProve["methods"] | null>(null);
  const [code, setCode] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    api.waysToProve().then(
      (found) => setWays(found.methods),
      (error) => setProblem(wordsFor(error)),
    );
  }, []);
  const prove = async (work: () => Promise<unknown>) => {
    setProblem(null);
    try {
      await work();
      onProved();
    } catch (error) {
      setCode("");
      setProblem(wordsFor(error));
    }
  };
  const proveByPasskey = () =>
    prove(async () => {
      const { options } = await api.passkeyQuestion();
      await api.stepUpByPasskey(await askPasskey(options));
    });
  if (ways === null) return problem ? <Problem words={problem} /> : <Spinner />;
  if (ways.includes("link")) return <ByLink onProved={onProved} />;
  const byPasskey = ways.includes("passkey") && passkeysWork() && (
    <button type="button" class="button" onClick={() => void proveByPasskey()}>
      Use a passkey
    </button>
  );
  // Backup codes stand in for a passkey as well as for an app.
  if (ways.includes("totp") || ways.includes("backup_code")) {
    return (
      <CodeForm
        code={code}
        onCode={setCode}
        problem={problem}
        onSend={() => void prove(() => api.stepUp(code))}
      >
        {byPasskey}
      </CodeForm>
    );
  }
  return (
    <div class="form">
      <Problem words={problem} />
      {byPasskey || (
        <p>
          Your account has a passkey, which this browser cannot use. Open OCMT in the browser that has it.
        </p>
      )}
    </div>
  );
}

/** Without a second factor the proof is a link by mail, opened in another tab of this browser. */
function ByLink({ onProved }: { onProved: () => void }) {
  const [sent, setSent] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const email = session.value.state === "signed-in" ? session.value.user.email : "you";
  // biome-ignore lint/correctness/useExhaustiveDependencies: for as long as the dialog is open
  useEffect(() => {
    const channel = signIns();
    channel?.addEventListener("message", onProved);
    return () => channel?.close();
  }, []);
  const send = async () => {
    setProblem(null);
    try {
      rememberPlace(location.pathname);
      await api.linkToProve();
      setSent(true);
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  const look = async () => {
    setProblem(null);
    try {
      if ((await api.waysToProve()).recent) onProved();
      else setProblem("Not yet. Open the link in this browser first.");
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  return (
    <div class="form">
      {sent ? (
        <p role="status">
          We sent a link to <strong>{email}</strong>. Open it in this browser; this page then goes on by
          itself, with what you have typed.
        </p>
      ) : (
        <p>You signed in a while ago. We can send a link to {email} to confirm that it's you.</p>
      )}
      <Problem words={problem} />
      {sent ? (
        <button type="button" class="button primary" onClick={() => void look()}>
          Continue
        </button>
      ) : (
        <button type="button" class="button primary" onClick={() => void send()}>
          E-mail me a link
        </button>
      )}
    </div>
  );
}
