/** Dark, light, or as the system says. The choice is kept in this browser and applied early by /theme.js. */
import { signal } from "@preact/signals";

export type Theme = "system" | "dark" | "light";

const KEY = "ocmt.theme";

function stored(): Theme {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "dark" || chosen === "light" ? chosen : "system";
}

export const theme = signal<Theme>(stored());

export function chooseTheme(chosen: Theme): void {
  theme.value = chosen;
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  try {
    if (chosen === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
}

/** What is on the screen now. */
export function shownTheme(): "dark" | "light" {
  if (theme.value !== "system") return theme.value;
  return matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}
