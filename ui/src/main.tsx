import { render } from "preact";
import { App } from "./app";
import { takePlaceAfterProvider } from "./returning";
import { navigate, route, startRouter } from "./router";
import { findSession, session } from "./session";
import "./styles/index.css";

startRouter();
const root = document.getElementById("app");
if (root) render(<App />, root);
// The sign-in page asks by itself, once it has used the link that it was opened with.
if (route.value.page !== "sign-in") void arrive();

async function arrive(): Promise<void> {
  await findSession();
  const wanted = session.value.state === "signed-in" ? takePlaceAfterProvider() : null;
  if (wanted !== null && location.pathname === "/") navigate(wanted, { replace: true });
}
