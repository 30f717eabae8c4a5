/** What surrounds every page of a signed-in user: the sidebar (a drawer on a phone), the header, the agent's state. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { wordsFor } from "../api";
import { navigate, route } from "../router";
import { session, signOut } from "../session";
import { chooseTheme, shownTheme, theme } from "../theme";
import { AgentStatus } from "./AgentStatus";
import { focusComposer } from "./Composer";
import { ConversationList } from "./ConversationList";
import { Dialog } from "./Dialog";
import { LeaveIcon, Logo, MenuIcon, MoonIcon, PlusIcon, SettingsIcon, SunIcon } from "./Icons";
import { Problem } from "./Problem";
import { StepUp } from "./StepUp";

interface Props {
  title: string;
  children: ComponentChildren;
}

export function Shell({ title, children }: Props) {
  const [drawer, setDrawer] = useState(false);
  const here = route.value;
  const who = session.value.state === "signed-in" ? session.value.user : null;
  // biome-ignore lint/correctness/useExhaustiveDependencies: going anywhere closes the drawer
  useEffect(() => setDrawer(false), [here]);
  return (
    <div class="shell">
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <aside class="sidebar">
        <a class="brand" href="/" data-route>
          <Logo /> OCMT
        </a>
        <SidebarContent />
      </aside>
      {drawer && (
        <Dialog title="OCMT" shape="drawer" onClose={() => setDrawer(false)}>
          <SidebarContent onNew={() => setDrawer(false)} />
        </Dialog>
      )}
      <main class="main" id="main" tabIndex={-1}>
        <header class="topbar">
          <button
            type="button"
            class="icon-button menu-button"
            aria-label="Menu"
            onClick={() => setDrawer(true)}
          >
            <MenuIcon />
          </button>
          <h1>{title}</h1>
          <AgentStatus />
        </header>
        {who?.impersonated_by && (
          <div class="banner" role="alert">
            <span>
              You see what <strong>{who.email}</strong> sees. You can look, but not change anything. They will
              read of it.
            </span>
            <button type="button" class="button" onClick={() => void backToOneself()}>
              Back to yourself
            </button>
          </div>
        )}
        {who?.must_enrol && here.page !== "settings" && (
          <div class="banner" role="alert">
            <span>Your administrator asks for a second factor.</span>
            <a class="button" href="/settings" data-route>
              Set it up
            </a>
          </div>
        )}
        {children}
      </main>
      <StepUp />
    </div>
  );
}

async function backToOneself(): Promise<void> {
  await signOut();
  location.assign("/");
}

function SidebarContent({ onNew }: { onNew?: () => void }) {
  return (
    <>
      <button
        type="button"
        class="button new-conversation"
        onClick={() => {
          navigate("/");
          onNew?.();
          focusComposer();
        }}
      >
        <PlusIcon /> New conversation
      </button>
      <ConversationList />
      <Account />
    </>
  );
}

function Account() {
  const [problem, setProblem] = useState<string | null>(null);
  const who = session.value.state === "signed-in" ? session.value.user : null;
  // Reading the signal draws this anew when the choice changes.
  const next = theme.value && shownTheme() === "dark" ? "light" : "dark";
  const leave = async () => {
    try {
      await signOut();
    } catch (error) {
      setProblem(wordsFor(error));
    }
  };
  return (
    <footer class="account">
      <Problem words={problem} />
      <span class="who" title={who?.email}>
        {who?.name || who?.email}
      </span>
      <div class="row">
        <a class="icon-button" href="/settings" data-route aria-label="Settings" title="Settings">
          <SettingsIcon />
        </a>
        <button
          type="button"
          class="icon-button"
          aria-label={`Switch to ${next} theme`}
          title={`Switch to ${next} theme`}
          onClick={() => chooseTheme(next)}
        >
          {next === "light" ? <SunIcon /> : <MoonIcon />}
        </button>
        <button
          type="button"
          class="icon-button"
          aria-label="Sign out"
          title="Sign out"
          onClick={() => void leave()}
        >
          <LeaveIcon />
        </button>
      </div>
    </footer>
  );
}
