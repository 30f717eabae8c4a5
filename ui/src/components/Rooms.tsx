/** The frame of the pages about oneself and one's organisation, with the way from each to the others. */
import type { ComponentChildren } from "preact";
import { route } from "../router";
import { session } from "../session";
import { useTitle } from "./hooks";
import { Shell } from "./Shell";

const ROOMS = [
  { page: "settings", title: "Settings", path: "/settings" },
  { page: "vault", title: "Vault", path: "/vault" },
  { page: "channels", title: "Channels", path: "/channels" },
  { page: "groups", title: "Groups", path: "/groups" },
  { page: "admin", title: "Administration", path: "/admin" },
] as const;

export function Rooms({ children }: { children: ComponentChildren }) {
  const who = session.value.state === "signed-in" ? session.value.user : null;
  const administers = who !== null && who.role !== "user";
  const here = ROOMS.find(({ page }) => page === route.value.page);
  const title = here?.title ?? "";
  useTitle(title);
  return (
    <Shell title={title}>
      <nav class="rooms" aria-label="Rooms">
        {ROOMS.filter(({ page }) => page !== "admin" || administers).map((room) => (
          <a key={room.page} href={room.path} data-route aria-current={room === here ? "page" : undefined}>
            {room.title}
          </a>
        ))}
      </nav>
      <div class="settings">{children}</div>
    </Shell>
  );
}
