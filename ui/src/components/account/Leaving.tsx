/** A copy of all that is one's own, and the end of the account. Both take a recent sign-in. */
import { useState } from "preact/hooks";
import { api, wordsFor } from "../../api";
import { session } from "../../session";
import { ensureProof } from "../../stepup";
import { Problem } from "../Problem";

export function Leaving() {
  const [confirm, setConfirm] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const who = session.value.state === "signed-in" ? session.value.user.email : "";
  const remove = async () => {
    setProblem(null);
    try {
      await api.deleteMe(confirm);
      session.value = { state: "signed-out", left: true };
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  const download = async () => {
    setProblem(null);
    try {
      await ensureProof();
      location.assign("/api/v1/me/export");
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  return (
    <section class="card" aria-labelledby="settings-leaving">
      <h2 id="settings-leaving">Export and delete</h2>
      <p>
        <button type="button" class="button" onClick={() => void download()}>
          Download all that is yours
        </button>
      </p>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void remove();
        }}
      >
        <label>
          To delete your account with your agent, its files and all conversations, write {who}
          <input
            autoComplete="off"
            value={confirm}
            onInput={(event) => setConfirm(event.currentTarget.value)}
          />
        </label>
        <Problem words={problem} />
        <button type="submit" class="button danger" disabled={confirm.trim() === ""}>
          Delete everything
        </button>
      </form>
    </section>
  );
}
