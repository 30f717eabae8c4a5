// A warm spare: loads what OpenClaw will load, for nobody, and becomes one agent's gateway when it is told
// whose. It has no secret, no token and no file of anybody's until then, and it is never given back.
// `plan.json` beside it is made by `ocmt.runtimes.spare_plan`, for exactly this OpenClaw.
// Descriptor 3, to the supervisor: "ready\n" out, one line of JSON in, "taken\n" out.

import "./held_still.mjs";
import childProcess from "node:child_process";
import { readFileSync, writeSync } from "node:fs";
import module from "node:module";
import net from "node:net";
import { pathToFileURL } from "node:url";
import threads from "node:worker_threads";

const SUPERVISOR = 3;
const WORKER = new URL("./spare_worker.mjs", import.meta.url);

const plan = JSON.parse(readFileSync(new URL("./plan.json", import.meta.url), "utf8"));

module.enableCompileCache(plan.cache);
// As OpenClaw's own launcher notes it, which finds the cache enabled already.
globalThis[Symbol.for("openclaw.nodeCompileCacheBase")] = { baseDirectory: plan.cache };
for (const url of plan.modules) await load(url);
await keepWorkers(plan.workers);
keepChildren(plan.children);
writeSync(SUPERVISOR, "ready\n");

const [order, socket] = await ordered();
for (const name of Object.keys(process.env)) delete process.env[name];
// Else the launcher starts itself anew, because the cache was not enabled by itself.
Object.assign(process.env, order.environment, { OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED: "1" });
process.chdir(order.directory);
// Node's own switches come before the program: this Node has begun already, and does what they say by itself.
const program = order.command.findIndex((word, place) => place > 0 && !word.startsWith("--"));
process.argv.splice(1, process.argv.length, ...order.command.slice(program));
socket.end("taken\n");
await import(pathToFileURL(process.argv[1]).href);

// What does not load by itself is loaded by OpenClaw in its own way.
async function load(url) {
  try {
    await import(url);
  } catch (error) {
    console.error(`spare: ${url}: ${String(error).split("\n")[0]}`);
  }
}

// Threads that have loaded what they will need; `new Worker` gives them out once each.
async function keepWorkers(kinds) {
  const Original = threads.Worker;
  const kept = new Map();
  class Worker extends Original {
    constructor(file, options) {
      const alike = options?.eval || options?.workerData ? undefined : kept.get(String(file));
      const ready = alike?.shift();
      // biome-ignore lint/correctness/noConstructorReturn: the ready one instead of a new one
      if (ready) return ready;
      super(file, options);
    }
  }
  for (const { entry, modules, count, limits } of kinds) {
    const made = [];
    for (let number = 0; number < count; number++) {
      made.push(await startedWorker(Original, Worker, entry, modules, limits));
    }
    kept.set(entry, made);
  }
  threads.Worker = Worker;
  module.syncBuiltinESMExports();
}

function startedWorker(Original, Worker, entry, modules, limits) {
  const options = {
    // The agent's own environment comes later: this thread sees it then.
    env: threads.SHARE_ENV,
    execArgv: [],
    resourceLimits: limits,
    workerData: { entry, modules },
  };
  const worker = Reflect.construct(Original, [WORKER, options], Worker);
  return new Promise((resolve, reject) => {
    worker.once("error", reject);
    worker.once("message", () => {
      worker.removeListener("error", reject);
      resolve(worker);
    });
  });
}

// Processes that wait for their first message; `spawn` gives them out once each.
function keepChildren(kinds) {
  const { spawn } = childProcess;
  const kept = new Map();
  const environment = { ...process.env, NODE_COMPILE_CACHE: plan.cache };
  for (const { argv, stdio, count } of kinds) {
    const made = Array.from({ length: count }, () =>
      spawn(process.execPath, argv, { stdio, env: environment }),
    );
    for (const child of made) child.once("error", () => {});
    kept.set(JSON.stringify(argv), made);
  }
  childProcess.spawn = function (command, argv, options) {
    const alike = command === process.execPath && kept.get(JSON.stringify(argv));
    const ready = alike && !options?.detached && alike.find((child) => child.connected);
    if (!ready) return spawn.apply(this, arguments);
    alike.splice(alike.indexOf(ready), 1);
    process.nextTick(() => ready.emit("spawn"));
    return ready;
  };
  module.syncBuiltinESMExports();
}

// The supervisor's word, once it comes. Where it never will, there is nothing to wait for.
function ordered() {
  const socket = new net.Socket({ fd: SUPERVISOR });
  let text = "";
  return new Promise((resolve) => {
    socket.on("data", (piece) => {
      text += piece;
      if (text.endsWith("\n")) {
        socket.removeAllListeners("close");
        resolve([JSON.parse(text), socket]);
      }
    });
    socket.on("error", () => process.exit(1));
    socket.on("close", () => process.exit(1));
  });
}
