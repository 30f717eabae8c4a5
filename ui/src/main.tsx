import { render } from "preact";
import { App } from "./app";
import { route, startRouter } from "./router";
import { findSession } from "./session";
import "./styles/index.css";

startRouter();
const root = document.getElementById("app");
if (root) render(<App />, root);
// The sign-in page asks by itself, once it has used the link that it was opened with.
if (route.value.page !== "sign-in") void findSession();
