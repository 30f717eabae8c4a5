/**
 * What the server sends, under the names that the pages use. Times are RFC 3339 strings.
 *
 * The Management API's come from its description (`server.ts`); the orchestrator's are written by hand from the HTTP
 * reference.
 */

export type {
  AccountView as ProviderAccount,
  DeliveryView as DeliveryOfAll,
  GroupInvitationView as GroupInvitation,
  GroupView as Group,
  ImportedView as ImportedVault,
  InvitationView as Invitation,
  ItemView as VaultItem,
  KeyView as ApiKey,
  MemberView as Member,
  MfaView as MfaState,
  NamedRowView as NamedAuditRow,
  OwnView as User,
  PasskeyView as Passkey,
  PeriodUsage,
  ProvidersView as SignInWays,
  ProviderView as SignInProvider,
  RowView as AuditRow,
  RulesView as SignUpRules,
  SessionView as LoginSession,
  StepUpView as WaysToProve,
  StorageView as StorageUse,
  TotpView as TotpBegun,
  TrialView as KeyTrial,
  UsageView as UsageReport,
  UserChange,
  UserView as Account,
  VersionView as KeptVersion,
} from "./server";

import type { SecondFactorView, SignedIn } from "./server";

/** The answer to a first or second proof of who one is. */
export type SignInStep = SignedIn | SecondFactorView;

export type AgentState = "stopped" | "starting" | "awake" | "paused" | "stopping" | "failed";

export interface Step {
  step: string;
  text: string;
}

export interface Hold {
  reason: string;
  reference: string;
  until: string | null;
  /** The reason in words. */
  text: string;
}

export interface Job {
  id: string;
  name: string;
  /** `at`, `every`, `cron`; anything else happens at no known time. */
  kind: string;
  /** A time, a number of seconds, or a cron expression. */
  timing: string;
  enabled: boolean;
  next_run_at: string | null;
  running_since: string | null;
  last_run_at: string | null;
  last_status: string | null;
  last_error: string | null;
  /** Whether the last run began late because the agent slept; then `late_for` is when it was due. */
  late: boolean;
  late_for: string | null;
}

/** What was to run once, and has. */
export interface DoneJob {
  id: string;
  name: string;
  due_at: string;
  began_at: string;
  late: boolean;
}

export interface Schedule {
  jobs: Job[];
  done: DoneJob[];
  next_run_at: string | null;
  left_out: number;
  read_at: string | null;
  heartbeat: { on: boolean; turns_per_day: number };
}

export interface Agent {
  state: AgentState;
  since: string;
  progress: Step | null;
  steps: Step[];
  kept_awake_by: Hold[];
  next_wake_at: string | null;
  isolation: {
    level: string;
    summary: string;
    guarantees: string[];
    missing: string[];
    is_boundary: boolean;
  } | null;
  image: string | null;
  model: { kind: "user" | "platform" | "demo"; label: string };
  egress: boolean;
  egress_policy: "off" | "opt-in" | "on";
  error: { code: string; message: string } | null;
  retry_at: string | null;
  files: FilesState;
  pause_after_seconds: number;
  stop_after_seconds: number;
}

/** How far the agent's files are saved. */
export interface FilesState {
  /** All files of that moment are; null: they never were. */
  saved_at: string | null;
  generation: number | null;
  /** Why those of later moments are not. */
  problem: { code: string; message: string } | null;
}

/** One kept state of the agent's files. */
export interface Snapshot {
  generation: number;
  created_at: string;
  image: string | null;
  files: number;
  bytes: number;
}

export interface SnapshotPage extends Page<Snapshot> {
  /** The one that is put in place when the agent next starts. */
  restore_asked: number | null;
  /** Whether an archive that was sent in is. */
  import_asked: boolean;
}

export interface ConversationInfo {
  id: string;
  title: string | null;
  created_at: string;
  updated_at: string;
}

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

/** A kind of channel that can be connected, and what a person does for it. */
export interface ChannelKind {
  channel: string;
  label: string;
  /** Name → label. */
  fields: Record<string, string>;
  /** Names of those that must be filled in. */
  required: string[];
  /** Whether each sender has to be let in. */
  pairs: boolean;
  /** Steps at the vendor before the form is filled in, and once it is connected. */
  before: string[];
  after: string[];
}

export interface Channel {
  id: string;
  channel: string;
  name: string;
  webhook_url: string;
  /** `answers: false` among them: no answer goes back over it. */
  settings: Record<string, unknown>;
  active: boolean;
  created_at: string;
  updated_at: string;
}

/** One that was connected just now. */
export interface OpenedChannel extends Channel {
  /** To be entered at the vendor; not to be had again. */
  secret?: string;
}

export interface ChannelSender {
  sender: string;
  name: string;
  state: "pending" | "approved" | "blocked";
  code_expires_at: string | null;
  created_at: string;
  updated_at: string;
}

export type DeliveryState = "accepted" | "answering" | "done" | "ignored" | "waiting" | "dead";

/** What became of one webhook, as its owner and the administrators may know it. */
export interface DeliveryFacts {
  id: string;
  received_at: string;
  state: DeliveryState;
  /** Tries that failed. */
  attempts: number;
  /** How often somebody had it run again. */
  replays: number;
  error: { code: string; message: string } | null;
  finished_at: string | null;
  /** Its body is not kept anymore, so it cannot run again. */
  body_dropped?: boolean;
  /** Messages of its answer by what became of them. */
  sent: number;
  pending: number;
  dead: number;
  may_be_double: boolean;
}

export interface Delivery extends DeliveryFacts {
  sender: string | null;
  next_at: string;
  conversation_id: string | null;
  /** Why its answer could not be sent. */
  last_error: { code: string; message: string } | null;
}

/** Deliveries that are to run again: these, or those of a time. */
export type ReplayAsked =
  | { ids: string[]; states: DeliveryState[] }
  | { from: string; to?: string; states: DeliveryState[] };

export type TurnStatus = "accepted" | "running" | "completed" | "failed" | "stopped";

export interface ToolCall {
  call_id: string;
  name: string;
  summary: string | null;
  phase: "start" | "update" | "result";
  failed: boolean;
}

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  calls: number;
}

export interface Fault {
  code: string;
  message: string;
  retryable: boolean;
}

/** A file that is sent with a message. */
export interface Attachment {
  id: string;
  name: string;
  media_type: string;
  /** Bytes. */
  size: number;
}

export interface Turn {
  id: string;
  conversation_id: string;
  /** Empty only where there are attachments. */
  text: string;
  attachments: Attachment[];
  status: TurnStatus;
  attempt: number;
  answer: string | null;
  tools: ToolCall[];
  usage: Usage | null;
  error: Fault | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
}

/** Oldest first. `next_cursor` leads to older turns; `resume_after` is where the event stream is to be taken up. */
export interface TurnPage extends Page<Turn> {
  resume_after: number;
}

/** One event of a conversation's stream; `seq` is its number in the conversation. */
export type StreamEvent = { seq: number; turn_id: string } & (
  | { type: "turn.accepted"; text: string; attempt: number; attachments?: Attachment[] }
  | { type: "agent.progress"; step: string; text: string }
  | { type: "turn.started" }
  | { type: "turn.delta"; text: string; replace?: true }
  | ({ type: "turn.tool" } & ToolCall)
  | { type: "turn.completed"; message: string | null; usage: Usage | null }
  | ({ type: "turn.failed" } & Fault)
  | { type: "turn.stopped" }
);

export const EVENT_TYPES: readonly StreamEvent["type"][] = [
  "turn.accepted",
  "agent.progress",
  "turn.started",
  "turn.delta",
  "turn.tool",
  "turn.completed",
  "turn.failed",
  "turn.stopped",
];
