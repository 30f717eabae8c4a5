import { defineConfig } from "vite";

// `npm run dev` serves the page from Vite and passes the rest on to an `ocmt up` on port 8080. The Origin is
// rewritten because the platform refuses writes from any other.
const platform = "http://localhost:8080";
const passedOn = { target: platform, changeOrigin: true, headers: { origin: platform } };

export default defineConfig({
  build: {
    target: "es2022",
    // Nothing is inlined as data: the content security policy allows none but images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": passedOn, "/agent": passedOn } },
});
