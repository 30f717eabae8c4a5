/** Where one is signed in, and signing a browser out from afar. */
import { api } from "../../api";
import { serverNow } from "../../clock";
import { moment } from "../../format";
import { useShown } from "../attempt";
import { Problem } from "../Problem";

export function Sessions() {
  const { value, problem, attempt } = useShown(async () => (await api.sessions()).items);
  const sessions = value ?? [];
  const others = sessions.filter((one) => !one.current);
  return (
    <section class="card" aria-labelledby="settings-sessions">
      <h2 id="settings-sessions">Where you are signed in</h2>
      <Problem words={problem} />
      <ul class="rows">
        {sessions.map((one) => (
          <li key={one.id} class="stored">
            <span>
              {one.impersonated ? "An administrator, on your behalf" : deviceOf(one.user_agent)}
              {one.current && <strong> · this browser</strong>}{" "}
              <span class="muted">
                {one.address ?? "unknown address"}, last used {moment(one.last_seen_at, serverNow())}
              </span>
            </span>
            {!one.current && (
              <button
                type="button"
                class="link-button"
                onClick={() => void attempt(() => api.endSession(one.id))}
              >
                Sign out
              </button>
            )}
          </li>
        ))}
      </ul>
      {others.length > 1 && (
        <button
          type="button"
          class="button"
          onClick={() => void attempt(() => Promise.all(others.map((one) => api.endSession(one.id))))}
        >
          Sign all others out
        </button>
      )}
    </section>
  );
}

/** "Firefox on Linux", from what browsers say of themselves. */
export function deviceOf(userAgent: string | null): string {
  if (!userAgent) return "An unknown program";
  const browser = ["Edg", "OPR", "Firefox", "Chrome", "Safari"].find((name) =>
    userAgent.includes(`${name}/`),
  );
  const names: Record<string, string> = { Edg: "Edge", OPR: "Opera" };
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"].find((name) =>
    userAgent.includes(name),
  );
  if (!browser) return userAgent.slice(0, 40);
  return `${names[browser] ?? browser}${system ? ` on ${system}` : ""}`;
}
