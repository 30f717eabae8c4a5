/** Which page is shown to whom. */
import { useEffect } from "preact/hooks";
import { watchAgent } from "./agent";
import { Loading } from "./components/Loading";
import { forgetConversations, refreshConversations } from "./conversations";
import { Admin } from "./pages/Admin";
import { Channels } from "./pages/Channels";
import { Chat } from "./pages/Chat";
import { Files } from "./pages/Files";
import { Groups } from "./pages/Groups";
import { Settings } from "./pages/Settings";
import { SignIn } from "./pages/SignIn";
import { Vault } from "./pages/Vault";
import { route } from "./router";
import { findSession, session } from "./session";

export function App() {
  const here = route.value;
  const now = session.value;
  if (here.page === "sign-in" || now.state === "signed-out") return <SignIn />;
  if (now.state === "unknown") {
    return (
      <main class="sign-in">
        <Loading />
      </main>
    );
  }
  if (now.state === "unreachable") {
    return (
      <main class="sign-in">
        <div class="card">
          <h1>OCMT does not answer</h1>
          <p role="alert">{now.problem}</p>
          <button type="button" class="button primary" onClick={() => void findSession()}>
            Try again
          </button>
        </div>
      </main>
    );
  }
  return <SignedIn />;
}

function SignedIn() {
  useEffect(() => {
    const unwatch = watchAgent();
    void refreshConversations();
    const onVisibility = () => {
      if (!document.hidden) void refreshConversations();
    };
    document.addEventListener("visibilitychange", onVisibility);
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      unwatch();
      forgetConversations();
    };
  }, []);
  const here = route.value;
  if (here.page === "settings") return <Settings />;
  if (here.page === "files") return <Files />;
  if (here.page === "vault") return <Vault />;
  if (here.page === "channels") return <Channels id={here.id} />;
  if (here.page === "groups") return <Groups />;
  if (here.page === "admin") return <Admin />;
  if (here.page === "chat") return <Chat id={here.id} />;
  return (
    <main class="sign-in">
      <div class="card">
        <h1>There is no such page</h1>
        <a class="button primary" href="/" data-route>
          To your agent
        </a>
      </div>
    </main>
  );
}
