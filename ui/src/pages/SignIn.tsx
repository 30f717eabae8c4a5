/**
 * Signing in: asks for an address, uses the link's token, which leaves the address bar at once, and asks for the
 * second factor where the account has one.
 */
import { useEffect, useState } from "preact/hooks";
import { ApiError, api, wordsFor } from "../api";
import { ProviderButtons } from "../components/account/Providers";
import { CodeForm } from "../components/CodeForm";
import { useTitle } from "../components/hooks";
import { Spinner } from "../components/Icons";
import { Problem } from "../components/Problem";
import { takeFragment, wordsForCode } from "../providers";
import { rememberPlace, signIns, takePlace } from "../returning";
import { navigate, route } from "../router";
import { findSession, session } from "../session";
import type { SignInStep } from "../types";
import { askPasskey, passkeysWork } from "../webauthn";

type Stage = "asking" | "sending" | "sent" | "using" | "confirming" | "proving";

const TITLES: Partial<Record<Stage, string>> = {
  sent: "Check your mail",
  confirming: "Was that you?",
  proving: "One more step",
};

export function SignIn() {
  const [stage, setStage] = useState<Stage>("asking");
  const [email, setEmail] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [link, setLink] = useState("");
  useTitle("Sign in");

  const arrive = async (step: SignInStep) => {
    if (step.mfa_required) {
      setStage("proving");
      return;
    }
    await findSession();
    if (session.value.state === "signed-in") {
      const channel = signIns();
      channel?.postMessage("signed in");
      channel?.close();
      navigate(takePlace(), { replace: true });
    } else setStage("asking");
  };

  const redeem = async (token: string, confirm: boolean) => {
    setStage("using");
    setProblem(null);
    try {
      await arrive(await api.redeemLink(token, confirm));
    } catch (error) {
      if (error instanceof ApiError && error.code === "confirmation_needed") {
        setLink(token);
        setStage("confirming");
        return;
      }
      setStage("asking");
      setProblem(wordsFor(error));
    }
  };

  // biome-ignore lint/correctness/useExhaustiveDependencies: once, and at every further link
  useEffect(() => {
    const left = session.value.state === "signed-out" && session.value.left;
    if (route.value.page !== "sign-in" && !left) rememberPlace(location.pathname);
    const use = async () => {
      // Taken out of the address bar before anything else can read it there.
      const token = takeFragment("token");
      const code = takeFragment("error");
      if (token !== null) await redeem(token, false);
      else if (code !== null) setProblem(wordsForCode(code));
      else if (takeFragment("mfa") !== null) setStage("proving");
      else if (session.value.state === "unknown") await findSession();
    };
    void use();
    // A link that is pasted into this very tab changes the fragment only.
    const again = () => void use();
    addEventListener("hashchange", again);
    return () => removeEventListener("hashchange", again);
  }, []);

  // Who is signed in already has no business here.
  const idle = stage === "asking" && problem === null;
  const superfluous = idle && session.value.state === "signed-in" && route.value.page === "sign-in";
  useEffect(() => {
    if (superfluous) navigate(takePlace(), { replace: true });
  }, [superfluous]);

  const ask = async () => {
    setStage("sending");
    setProblem(null);
    try {
      await api.requestLink(email.trim());
      setStage("sent");
    } catch (error) {
      setStage("asking");
      setProblem(wordsFor(error));
    }
  };

  return (
    <main class="sign-in">
      <div class="card">
        <img src="/favicon.svg" alt="" width="56" height="56" />
        <h1>{TITLES[stage] ?? "Sign in to OCMT"}</h1>
        {stage === "using" && (
          <p class="wait-line" role="status">
            <Spinner /> Signing you in…
          </p>
        )}
        {stage === "sent" && (
          <div role="status">
            <p>
              If <strong>{email.trim()}</strong> may sign in here, we sent you a link. It works once, for 15
              minutes.
            </p>
            <p class="muted">On this machine it is printed in the terminal where OCMT runs.</p>
            <button type="button" class="link-button" onClick={() => setStage("asking")}>
              Use another address
            </button>
          </div>
        )}
        {stage === "confirming" && (
          <div role="status">
            <p>This link was asked for in another browser, or on another device.</p>
            <p>Go on only if it was you who asked for it.</p>
            <button type="button" class="button primary wide" onClick={() => void redeem(link, true)}>
              It was me: sign in here
            </button>
            <button type="button" class="link-button" onClick={() => setStage("asking")}>
              It was not me
            </button>
          </div>
        )}
        {stage === "proving" && <SecondProof onDone={(step) => void arrive(step)} />}
        {(stage === "asking" || stage === "sending") && (
          <form
            class="form"
            onSubmit={(event) => {
              event.preventDefault();
              void ask();
            }}
          >
            <label>
              E-mail
              <input
                type="email"
                name="email"
                autoComplete="email"
                required
                placeholder="you@example.org"
                value={email}
                onInput={(event) => setEmail(event.currentTarget.value)}
              />
            </label>
            <Problem words={problem} />
            <button type="submit" class="button primary wide" disabled={stage === "sending"}>
              {stage === "sending" ? "Sending…" : "Send me a link"}
            </button>
            <p class="muted">No password: we send you a link that signs you in.</p>
            <PasskeyButton onDone={(step) => void arrive(step)} onProblem={setProblem} />
            <ProviderButtons />
          </form>
        )}
      </div>
    </main>
  );
}

interface PasskeyProps {
  onDone: (step: SignInStep) => void;
  onProblem: (words: string | null) => void;
}

function PasskeyButton({ onDone, onProblem }: PasskeyProps) {
  if (!passkeysWork()) return null;
  const use = async () => {
    onProblem(null);
    try {
      const { options } = await api.passkeyQuestion();
      onDone(await api.signInByPasskey(await askPasskey(options)));
    } catch (error) {
      const words = "No passkey was used. Try again, or sign in by a link.";
      onProblem(error instanceof ApiError ? wordsFor(error) : words);
    }
  };
  return (
    <button type="button" class="button wide" onClick={() => void use()}>
      Use a passkey
    </button>
  );
}

function SecondProof({ onDone }: { onDone: (step: SignInStep) => void }) {
  const [code, setCode] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const send = async () => {
    setProblem(null);
    try {
      onDone(await api.secondFactor(code));
    } catch (error) {
      setCode("");
      setProblem(wordsFor(error));
    }
  };
  return (
    <CodeForm code={code} onCode={setCode} problem={problem} onSend={() => void send()} wide>
      <PasskeyButton onDone={onDone} onProblem={setProblem} />
    </CodeForm>
  );
}
