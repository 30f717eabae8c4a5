/**
 * The state of the user's agent, asked for while somebody looks: every 5 s, every 2 s while it is changing, never
 * from a hidden tab. Asking wakes nothing.
 */
import { signal } from "@preact/signals";
import { api, wordsFor } from "./api";
import type { Agent, AgentState } from "./types";

const CALM_MS = 5_000;
const CHANGING_MS = 2_000;

export const agent = signal<Agent | null>(null);
/** What went wrong with the last thing that was asked of the agent here. */
export const agentProblem = signal<string | null>(null);

export const STATE_WORDS: Record<AgentState, string> = {
  stopped: "Asleep",
  starting: "Waking",
  awake: "Awake",
  paused: "Paused",
  stopping: "Going to sleep",
  failed: "Failed",
};

let timer: ReturnType<typeof setTimeout> | undefined;
let watching = false;
/** Counts what was asked, so that a slow, older answer never overwrites a newer one. */
let asked = 0;

export async function refreshAgent(): Promise<void> {
  const number = ++asked;
  clearTimeout(timer);
  try {
    const answer = await api.agent();
    if (number === asked) agent.value = answer;
  } catch {
    // The next look will tell; a state that cannot be seen is not a new state.
  }
  if (number === asked) schedule();
}

/** Looks again soon: something was just asked of the agent. */
export function expectChange(): void {
  if (watching) schedule(300);
}

export async function tellAgent(what: "wake" | "hibernate" | "restart"): Promise<void> {
  await change(() => api.agentDo(what));
}

let calling = false;

/** Somebody writes: a sleeping agent is called now, so that it is there when the message is. */
export async function expectMessage(): Promise<void> {
  const state = agent.value?.state;
  if (calling || (state !== "paused" && state !== "stopped")) return;
  calling = true;
  const number = ++asked;
  clearTimeout(timer);
  try {
    const answer = await api.agentDo("wake");
    if (number === asked) agent.value = answer;
  } catch {
    // Not asked for by a person: what is wrong, their message will be told.
  } finally {
    calling = false;
  }
  schedule(CHANGING_MS / 4);
}

export async function setEgress(egress: boolean): Promise<void> {
  await change(() => api.changeAgent({ egress }));
}

async function change(make: () => Promise<Agent>): Promise<void> {
  agentProblem.value = null;
  const number = ++asked;
  clearTimeout(timer);
  try {
    const answer = await make();
    if (number === asked) agent.value = answer;
  } catch (error) {
    agentProblem.value = wordsFor(error);
  }
  schedule(CHANGING_MS / 4);
}

function schedule(after?: number): void {
  clearTimeout(timer);
  if (!watching || document.hidden) return;
  const state = agent.value?.state;
  const changing = state === "starting" || state === "stopping";
  timer = setTimeout(() => void refreshAgent(), after ?? (changing ? CHANGING_MS : CALM_MS));
}

function onVisibility(): void {
  if (document.hidden) clearTimeout(timer);
  else void refreshAgent();
}

/** Starts looking; returns what ends it. */
export function watchAgent(): () => void {
  watching = true;
  document.addEventListener("visibilitychange", onVisibility);
  if (!document.hidden) void refreshAgent();
  return () => {
    watching = false;
    asked++;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisibility);
    agent.value = null;
  };
}
