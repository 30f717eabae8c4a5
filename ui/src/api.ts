/**
 * The server's HTTP interface as typed functions. Same origin, cookie session; a fault is thrown as `ApiError` whose
 * message is the server's own sentence for the user.
 */
import { learnServerTime } from "./clock";
import type {
  Account,
  Agent,
  ApiKey,
  AuditRow,
  Channel,
  ChannelKind,
  ChannelSender,
  ConversationInfo,
  Delivery,
  DeliveryOfAll,
  DeliveryState,
  Group,
  GroupInvitation,
  ImportedVault,
  Invitation,
  KeptVersion,
  KeyTrial,
  LoginSession,
  Member,
  MfaState,
  NamedAuditRow,
  OpenedChannel,
  Page,
  Passkey,
  ProviderAccount,
  ReplayAsked,
  Schedule,
  SignInStep,
  SignInWays,
  SignUpRules,
  SnapshotPage,
  TotpBegun,
  Turn,
  TurnPage,
  UsageReport,
  User,
  UserChange,
  VaultItem,
  WaysToProve,
} from "./types";

const TIMEOUT_MS = 30_000;
const UPLOAD_TIMEOUT_MS = 3_600_000;

export class ApiError extends Error {
  constructor(
    /** HTTP status; 0: the server could not be reached. */
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryable: boolean,
  ) {
    super(message);
  }
}

/** The sentence to show for whatever was thrown. */
export function wordsFor(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  return "Something went wrong in this page. Reload it and try again.";
}

let proveAgain: () => Promise<boolean> = async () => false;

/** Calls `ask` where a request takes a recent sign-in; the request is repeated if it says that there was one. */
export function onProofNeeded(ask: () => Promise<boolean>): void {
  proveAgain = ask;
}

let whenSignedOut: () => void = () => {};

/** Calls `listener` whenever the server says that nobody is signed in. */
export function onSignedOut(listener: () => void): void {
  whenSignedOut = listener;
}

interface Options {
  body?: unknown;
  headers?: Record<string, string>;
  /** Sent as it is, in the place of a body. */
  file?: File;
}

async function request<T>(method: string, path: string, options: Options = {}): Promise<T> {
  try {
    return await requestOnce<T>(method, path, options);
  } catch (error) {
    const asked = error instanceof ApiError && error.code === "recent_sign_in_needed";
    if (!asked || !(await proveAgain())) throw error;
    return await requestOnce<T>(method, path, options);
  }
}

async function requestOnce<T>(method: string, path: string, options: Options): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json", ...options.headers };
  if (options.body !== undefined) headers["content-type"] = "application/json";
  if (options.file) headers["content-type"] = "application/zip";
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, {
      method,
      headers,
      credentials: "same-origin",
      cache: "no-store",
      body: options.file ?? (options.body === undefined ? null : JSON.stringify(options.body)),
      signal: AbortSignal.timeout(options.file ? UPLOAD_TIMEOUT_MS : TIMEOUT_MS),
    });
    text = await response.text();
  } catch {
    throw unreachable();
  }
  learnServerTime(response.headers.get("date"));
  const fault = faultOf(response.status, response.headers.get("content-type"), text);
  if (fault) throw fault;
  return (text ? JSON.parse(text) : undefined) as T;
}

export function unreachable(): ApiError {
  const words = "The server does not answer. Check that it runs and try again.";
  return new ApiError(0, "unreachable", words, true);
}

/**
 * What an answer says went wrong, null for one that is fine: an RFC 9457 problem, or whatever something between us
 * and the server answered in its place.
 */
export function faultOf(status: number, contentType: string | null, text: string): ApiError | null {
  if (status >= 200 && status < 300) return null;
  let problem: { title?: string; detail?: string; code?: string; retryable?: boolean } = {};
  if (contentType?.includes("json")) {
    try {
      problem = JSON.parse(text) ?? {};
    } catch {
      problem = {};
    }
  }
  if (status === 401) whenSignedOut();
  const message = problem.detail || problem.title || `The server answered with an error (${status}).`;
  return new ApiError(status, problem.code ?? "internal", message, problem.retryable ?? status >= 502);
}

const conversation = (id: string) => `/agent/conversations/${encodeURIComponent(id)}`;
const turn = (id: string) => `/agent/turns/${encodeURIComponent(id)}`;
const attachment = (id: string) => `/agent/attachments/${encodeURIComponent(id)}`;
const channel = (id: string) => `/agent/channels/${id}`;
const vaultItem = (name: string) => `/api/v1/vault/items/${encodeURIComponent(name)}`;
const group = (id: string) => `/api/v1/groups/${encodeURIComponent(id)}`;
const signUpRule = (kind: string, value: string) =>
  `/api/v1/admin/sign-up-rules/${kind}/${encodeURIComponent(value)}`;
const query = (name: string, value: string | null) => queries({ [name]: value });

/** What is null or empty is left out. */
function queries(given: Record<string, string | null>): string {
  const said = Object.entries(given).filter((each): each is [string, string] => !!each[1]);
  return said.length > 0 ? `?${new URLSearchParams(said)}` : "";
}

export const api = {
  me: () => request<User>("GET", "/api/v1/me"),
  requestLink: (email: string) => request<void>("POST", "/api/v1/auth/magic-link", { body: { email } }),
  /** `confirm`: sign in here although another browser has asked for the link. */
  redeemLink: (token: string, confirm: boolean) =>
    request<SignInStep>("POST", "/api/v1/auth/magic-link/verify", { body: { token, confirm } }),
  secondFactor: (code: string) => request<SignInStep>("POST", "/api/v1/auth/mfa", { body: { code } }),
  stepUp: (code: string) => request<void>("POST", "/api/v1/auth/step-up", { body: { code } }),
  waysToProve: () => request<WaysToProve>("GET", "/api/v1/auth/step-up"),
  linkToProve: () => request<void>("POST", "/api/v1/auth/step-up/link"),
  signOut: () => request<void>("POST", "/api/v1/auth/logout"),

  providers: () => request<SignInWays>("GET", "/api/v1/auth/providers"),
  providerAccounts: () => request<{ items: ProviderAccount[] }>("GET", "/api/v1/oidc-accounts"),
  disconnectProvider: (id: string) => request<void>("DELETE", `/api/v1/oidc-accounts/${id}`),
  sessions: () => request<{ items: LoginSession[] }>("GET", "/api/v1/sessions"),
  endSession: (id: string) => request<void>("DELETE", `/api/v1/sessions/${id}`),
  mfa: () => request<MfaState>("GET", "/api/v1/mfa"),
  beginTotp: () => request<TotpBegun>("POST", "/api/v1/mfa/totp"),
  confirmTotp: (code: string) =>
    request<{ codes: string[] }>("POST", "/api/v1/mfa/totp/confirm", { body: { code } }),
  removeTotp: () => request<void>("DELETE", "/api/v1/mfa/totp"),
  newBackupCodes: () => request<{ codes: string[] }>("POST", "/api/v1/mfa/backup-codes"),
  passkeys: () => request<{ items: Passkey[] }>("GET", "/api/v1/passkeys"),
  passkeyRegistration: () =>
    request<{ options: Record<string, unknown> }>("POST", "/api/v1/passkeys/options"),
  addPasskey: (name: string, credential: unknown) =>
    request<{ id: string }>("POST", "/api/v1/passkeys", { body: { name, credential } }),
  removePasskey: (id: string) => request<void>("DELETE", `/api/v1/passkeys/${id}`),
  passkeyQuestion: () =>
    request<{ options: Record<string, unknown> }>("POST", "/api/v1/auth/passkey/options"),
  signInByPasskey: (credential: unknown) =>
    request<SignInStep>("POST", "/api/v1/auth/passkey/verify", { body: { credential } }),
  stepUpByPasskey: (credential: unknown) =>
    request<void>("POST", "/api/v1/auth/step-up/passkey", { body: { credential } }),
  apiKeys: () => request<{ items: ApiKey[]; scopes: Record<string, string> }>("GET", "/api/v1/api-keys"),
  makeApiKey: (key: { name: string; scopes: string[]; expires_at: string | null }) =>
    request<ApiKey & { key: string }>("POST", "/api/v1/api-keys", { body: key }),
  revokeApiKey: (id: string) => request<void>("DELETE", `/api/v1/api-keys/${id}`),
  deleteMe: (confirm: string) => request<void>("DELETE", "/api/v1/me", { body: { confirm } }),
  audit: (before: number | null) =>
    request<{ items: AuditRow[]; next: number | null }>(
      "GET",
      `/api/v1/audit${query("before", before === null ? null : String(before))}`,
    ),

  agent: () => request<Agent>("GET", "/agent"),
  schedule: () => request<Schedule>("GET", "/agent/schedule"),
  agentDo: (what: "wake" | "hibernate" | "restart") => request<Agent>("POST", `/agent/${what}`),
  changeAgent: (change: { egress: boolean }) => request<Agent>("PATCH", "/agent", { body: change }),

  snapshots: (cursor: string | null = null) =>
    request<SnapshotPage>("GET", `/agent/snapshots${query("cursor", cursor)}`),
  restoreSnapshot: (generation: number) =>
    request<{ restore_asked: number }>("POST", `/agent/snapshots/${generation}/restore`),
  archiveUrl: (generation: number) => `/agent/snapshots/${generation}/archive`,
  sendArchive: (file: File) => request<{ files: number }>("POST", "/agent/snapshots", { file }),

  conversations: (cursor: string | null = null) =>
    request<Page<ConversationInfo>>("GET", `/agent/conversations${query("cursor", cursor)}`),
  createConversation: () => request<ConversationInfo>("POST", "/agent/conversations", { body: {} }),
  renameConversation: (id: string, title: string) =>
    request<ConversationInfo>("PATCH", conversation(id), { body: { title } }),
  deleteConversation: (id: string) => request<void>("DELETE", conversation(id)),

  turns: (id: string, before: string | null = null) =>
    request<TurnPage>("GET", `${conversation(id)}/turns${query("before", before)}`),
  /** `key` names this message: sending it again with the same key sends it once. */
  send: (id: string, text: string, attachments: string[], key: string) =>
    request<Turn>("POST", `${conversation(id)}/turns`, {
      body: { text, attachments },
      headers: { "idempotency-key": key },
    }),
  eventsUrl: (id: string, after: number, follow: boolean) =>
    `${conversation(id)}/events?after=${after}${follow ? "" : "&follow=0"}`,
  stopTurn: (id: string) => request<Turn>("POST", `${turn(id)}/stop`),
  retryTurn: (id: string) => request<Turn>("POST", `${turn(id)}/retry`),

  attachmentUrl: attachment,
  /** Where a file is posted, as it is: see `transfer.ts`. */
  newAttachmentUrl: (name: string) => `/agent/attachments${query("name", name)}`,
  /** Of one that no message has. */
  dropAttachment: (id: string) => request<void>("DELETE", attachment(id)),

  channels: () => request<{ kinds: ChannelKind[]; items: Channel[] }>("GET", "/agent/channels"),
  connectChannel: (kind: string, fields: Record<string, string>) =>
    request<OpenedChannel>("POST", "/agent/channels", { body: { channel: kind, fields } }),
  renameChannel: (id: string, name: string) => request<Channel>("PATCH", channel(id), { body: { name } }),
  reconnectChannel: (id: string, fields: Record<string, string>) =>
    request<OpenedChannel>("POST", `${channel(id)}/reconnect`, { body: { fields } }),
  disconnectChannel: (id: string) => request<void>("DELETE", channel(id)),
  senders: (id: string) => request<{ items: ChannelSender[] }>("GET", `${channel(id)}/senders`),
  letIn: (id: string, who: { code: string } | { sender: string }) =>
    request<ChannelSender>("POST", `${channel(id)}/senders/approve`, { body: who }),
  blockSender: (id: string, sender: string) =>
    request<ChannelSender>("POST", `${channel(id)}/senders/block`, { body: { sender } }),
  forgetSender: (id: string, sender: string) =>
    request<void>("DELETE", `${channel(id)}/senders/${encodeURIComponent(sender)}`),
  deliveries: (id: string, state: DeliveryState | null, cursor: string | null) =>
    request<Page<Delivery>>("GET", `${channel(id)}/deliveries${queries({ state, cursor })}`),
  clearDeliveries: (id: string) => request<{ count: number }>("DELETE", `${channel(id)}/deliveries`),
  replay: (id: string, asked: ReplayAsked) =>
    request<{ count: number }>("POST", `${channel(id)}/deliveries/replay`, { body: asked }),
  resend: (id: string, delivery: string) =>
    request<{ count: number }>("POST", `${channel(id)}/deliveries/${delivery}/resend`),

  vaultItems: () => request<{ items: VaultItem[] }>("GET", "/api/v1/vault/items"),
  putVaultItem: (name: string, value: string, kind?: VaultItem["kind"]) =>
    request<void>("PUT", vaultItem(name), { body: kind ? { value, kind } : { value } }),
  testVaultItem: (name: string) => request<KeyTrial>("POST", `${vaultItem(name)}/test`),
  revealVaultItem: (name: string) => request<{ value: string }>("POST", `${vaultItem(name)}/reveal`),
  vaultVersions: (name: string) => request<{ items: KeptVersion[] }>("GET", `${vaultItem(name)}/versions`),
  restoreVaultVersion: (name: string, version: number) =>
    request<void>("POST", `${vaultItem(name)}/versions/${version}/restore`),
  importedVault: () => request<ImportedVault>("GET", "/api/v1/vault/imported"),
  unlockVault: (password: string) => request<void>("POST", "/api/v1/vault/unlock", { body: { password } }),
  recoverVault: (phrase: string) => request<void>("POST", "/api/v1/vault/recover", { body: { phrase } }),
  lockVault: () => request<void>("POST", "/api/v1/vault/lock"),
  deleteVaultItem: (name: string) => request<void>("DELETE", vaultItem(name)),
  usage: () => request<UsageReport>("GET", "/api/v1/usage"),

  groups: () => request<{ items: Group[] }>("GET", "/api/v1/groups"),
  makeGroup: (name: string) => request<Group>("POST", "/api/v1/groups", { body: { name } }),
  renameGroup: ({ id, description }: Group, name: string) =>
    request<Group>("PUT", group(id), { body: { name, description } }),
  deleteGroup: (id: string) => request<void>("DELETE", group(id)),
  members: (id: string, after: string | null) =>
    request<{ items: Member[]; next: string | null }>("GET", `${group(id)}/members${query("after", after)}`),
  setMemberRole: (id: string, userId: string, role: Member["role"]) =>
    request<void>("PUT", `${group(id)}/members/${userId}`, { body: { role } }),
  removeMember: (id: string, userId: string) => request<void>("DELETE", `${group(id)}/members/${userId}`),
  shareKey: (id: string, name: string, value: string) =>
    request<void>("PUT", `${group(id)}/keys/${name}`, { body: { value } }),
  unshareKey: (id: string, name: string) => request<void>("DELETE", `${group(id)}/keys/${name}`),
  openInvitations: (id: string) => request<{ items: GroupInvitation[] }>("GET", `${group(id)}/invitations`),
  inviteToGroup: (id: string, email: string) =>
    request<{ id: string }>("POST", `${group(id)}/invitations`, { body: { email } }),
  withdrawInvitation: (id: string, invitation: string) =>
    request<void>("DELETE", `${group(id)}/invitations/${invitation}`),
  groupInvitations: () => request<{ items: GroupInvitation[] }>("GET", "/api/v1/group-invitations"),
  acceptInvitation: (id: string) => request<Group>("POST", `/api/v1/group-invitations/${id}/accept`),
  declineInvitation: (id: string) => request<void>("POST", `/api/v1/group-invitations/${id}/decline`),

  users: (after: string | null, search: string) =>
    request<{ items: Account[]; next: string | null }>(
      "GET",
      `/api/v1/admin/users?search=${encodeURIComponent(search)}${after === null ? "" : `&after=${after}`}`,
    ),
  addUser: (email: string) => request<Account>("POST", "/api/v1/admin/users", { body: { email } }),
  changeUser: (id: string, change: UserChange) =>
    request<Account>("PATCH", `/api/v1/admin/users/${id}`, { body: change }),
  impersonate: (id: string, reason: string) =>
    request<void>("POST", `/api/v1/admin/users/${id}/impersonate`, { body: { reason } }),
  signUpRules: () => request<SignUpRules>("GET", "/api/v1/admin/sign-up-rules"),
  putSignUpRule: (kind: string, value: string) => request<void>("PUT", signUpRule(kind, value)),
  dropSignUpRule: (kind: string, value: string) => request<void>("DELETE", signUpRule(kind, value)),
  invitations: () => request<{ items: Invitation[] }>("GET", "/api/v1/admin/invitations?limit=500"),
  invite: (email: string) => request<Invitation>("POST", "/api/v1/admin/invitations", { body: { email } }),
  revokeInvitation: (id: string) => request<void>("DELETE", `/api/v1/admin/invitations/${id}`),
  deliveriesOfAll: async (state: DeliveryState | null, email: string, cursor: string | null) => {
    const { items, next } = await request<{ items: DeliveryOfAll[]; next: string | null }>(
      "GET",
      `/api/v1/admin/deliveries${queries({ state, email, cursor })}`,
    );
    return { items, next_cursor: next };
  },
  replayOfAll: (asked: ReplayAsked, email: string) =>
    request<{ count: number }>("POST", "/api/v1/admin/deliveries/replay", {
      body: email ? { ...asked, email } : asked,
    }),
  auditOfAll: (before: number | null) =>
    request<{ items: NamedAuditRow[]; next: number | null }>(
      "GET",
      `/api/v1/admin/audit${query("before", before === null ? null : String(before))}`,
    ),
};
