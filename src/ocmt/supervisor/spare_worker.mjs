// A thread of a warm spare: loads what its kind will load, then becomes it.

import { parentPort, workerData } from "node:worker_threads";

for (const url of workerData.modules) {
  try {
    await import(url);
  } catch (error) {
    console.error(`spare worker: ${url}: ${String(error).split("\n")[0]}`);
  }
}
await import(workerData.entry);
parentPort.postMessage("ready");
