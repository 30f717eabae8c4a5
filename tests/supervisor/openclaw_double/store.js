import { parentPort } from "node:worker_threads";
import "./heavy.mjs";

parentPort.on("message", (text) => {
  parentPort.postMessage([text, process.env.SECRET, process.env.BORN]);
});
