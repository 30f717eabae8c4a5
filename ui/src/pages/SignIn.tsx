/** Signing in by a link: asks for an address, and uses the link's token, which leaves the address bar at once. */
import { useEffect, useState } from "preact/hooks";
import { api, wordsFor } from "../api";
import { useTitle } from "../components/hooks";
import { Spinner } from "../components/Icons";
import { navigate, route } from "../router";
import { findSession, session } from "../session";

type Stage = "asking" | "sending" | "sent" | "using";

/** The token of a sign-in link, taken out of the address bar before anything else can read it there. */
function takeToken(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname);
  return token;
}

export function SignIn() {
  const [stage, setStage] = useState<Stage>("asking");
  const [email, setEmail] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  useTitle("Sign in");

  useEffect(() => {
    const use = async () => {
      const token = takeToken();
      if (token === null) {
        if (session.value.state === "unknown") await findSession();
        return;
      }
      setStage("using");
      setProblem(null);
      try {
        await api.redeemLink(token);
        await findSession();
        if (session.value.state === "signed-in") navigate("/", { replace: true });
        else setStage("asking");
      } catch (error) {
        setStage("asking");
        setProblem(wordsFor(error));
      }
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
    if (superfluous) navigate("/", { replace: true });
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
        <h1>{stage === "sent" ? "Check your mail" : "Sign in to OCMT"}</h1>
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
            {problem && (
              <p class="problem" role="alert">
                {problem}
              </p>
            )}
            <button type="submit" class="button primary wide" disabled={stage === "sending"}>
              {stage === "sending" ? "Sending…" : "Send me a link"}
            </button>
            <p class="muted">No password: we send you a link that signs you in.</p>
          </form>
        )}
      </div>
    </main>
  );
}
