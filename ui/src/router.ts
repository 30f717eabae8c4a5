/** Which page is shown: the address bar as a signal, and links that change it without loading a page. */
import { computed, signal } from "@preact/signals";

export type Route =
  | { page: "chat"; id: string | null }
  | { page: "channels"; id: string | null }
  | { page: "files" }
  | { page: "settings" }
  | { page: "vault" }
  | { page: "groups" }
  | { page: "admin" }
  | { page: "sign-in" }
  | { page: "unknown" };

const PAGES = ["files", "settings", "vault", "groups", "admin", "sign-in"] as const;

const path = signal(location.pathname);

export function parseRoute(pathname: string): Route {
  if (pathname === "/") return { page: "chat", id: null };
  const page = PAGES.find((each) => pathname === `/${each}`);
  if (page) return { page };
  if (pathname === "/channels") return { page: "channels", id: null };
  const one = /^\/(chat|channels)\/([0-9a-f-]{36})$/i.exec(pathname);
  if (!one?.[2]) return { page: "unknown" };
  return { page: one[1] === "chat" ? "chat" : "channels", id: one[2] };
}

export const route = computed(() => parseRoute(path.value));

export const chatPath = (id: string) => `/chat/${id}`;
export const channelPath = (id: string) => `/channels/${id}`;

export function navigate(to: string, options: { replace?: boolean } = {}): void {
  if (options.replace) history.replaceState(null, "", to);
  else if (to !== location.pathname) history.pushState(null, "", to);
  path.value = location.pathname;
}

/** Makes ordinary links to our own pages change the route only; anything else stays with the browser. */
export function startRouter(): void {
  addEventListener("popstate", () => {
    path.value = location.pathname;
  });
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a[data-route]") : null;
    if (!(link instanceof HTMLAnchorElement)) return;
    event.preventDefault();
    navigate(link.pathname);
  });
}
