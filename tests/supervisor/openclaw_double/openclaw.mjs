// Says what has become of the spare, and uses two threads and two processes of which one each waits.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { early } from "./heavy.mjs";

const entry = new URL("./store.js", import.meta.url);
const reader = fileURLToPath(new URL("./reader.js", import.meta.url));
const options = { stdio: ["ignore", "pipe", "pipe", "ipc"], env: {} };

const answer = (from) => new Promise((resolve) => from.once("message", resolve));
const told = [];
const read = [];
const workers = [new Worker(entry, {}), new Worker(entry, {})];
for (const worker of workers) {
  const heard = answer(worker);
  worker.postMessage("hi");
  told.push(await heard);
}
for (const child of [1, 2].map(() => spawn(process.execPath, [reader], options))) {
  const heard = answer(child);
  child.send("hi");
  read.push(await heard);
}
console.log(
  JSON.stringify({
    argv: process.argv.slice(1),
    folder: process.cwd(),
    env: process.env,
    early,
    loaded: globalThis.loaded,
    told,
    read,
    isWorker: workers.every((one) => one instanceof Worker),
  }),
);
process.exit(0);
