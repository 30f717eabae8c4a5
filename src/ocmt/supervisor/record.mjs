// Notes what one start of OpenClaw loads, for `ocmt.runtimes.spare_plan`: `node --import record.mjs`, run in
// every process and thread of it. OCMT_RECORD names the folder for the notes, a file of JSON lines per thread.

import { appendFileSync, mkdirSync } from "node:fs";
import { createRequire, registerHooks, syncBuiltinESMExports } from "node:module";
import { isMainThread, resourceLimits, threadId, workerData } from "node:worker_threads";

const folder = process.env.OCMT_RECORD;
if (folder) {
  mkdirSync(folder, { recursive: true });
  const file = `${folder}/${process.pid}-${threadId}.jsonl`;
  const note = (fact) => appendFileSync(file, `${JSON.stringify(fact)}\n`);
  note({
    argv: process.argv,
    main: isMainThread,
    given: workerData !== null && workerData !== undefined,
    limits: resourceLimits,
  });

  let loaded = [];
  const flush = () => {
    if (loaded.length) note({ modules: loaded });
    loaded = [];
    const base = globalThis[Symbol.for("openclaw.nodeCompileCacheBase")]?.baseDirectory;
    if (isMainThread && base) note({ cache: base });
  };
  registerHooks({
    load(url, context, next) {
      if (url.startsWith("file:")) loaded.push(url);
      return next(url, context);
    },
  });
  setInterval(flush, 200).unref();
  process.on("exit", flush);

  const processes = createRequire(import.meta.url)("node:child_process");
  const { spawn } = processes;
  processes.spawn = function (command, argv, options) {
    const { stdio, detached } = options ?? {};
    if (command === process.execPath && Array.isArray(stdio) && stdio.includes("ipc") && !detached) {
      note({ child: argv, stdio });
    }
    return spawn.apply(this, arguments);
  };
  syncBuiltinESMExports();
}
