/**
 * What the Management API takes and gives: made from docs/reference/openapi.json by `npm run types`.
 */

/**
 * What became of a delivery.
 */
export type State = "accepted" | "answering" | "done" | "ignored" | "waiting" | "dead";
/**
 * What a user keeps, each with a budget of its own.
 */
export type Store = "conversations" | "deliveries" | "attachments" | "snapshots";

/**
 * All of them, oldest first; there is no next page.
 */
export interface AccountPage {
  items: AccountView[];
  next?: null;
}
/**
 * One's account at a provider, by which one can sign in.
 */
export interface AccountView {
  created_at: string;
  email: string;
  id: string;
  label: string;
  last_used_at: string | null;
  provider: string;
}
/**
 * What an authenticator has answered (AuthenticationResponseJSON).
 */
export interface AnswerBody {
  credential: {
    [k: string]: unknown;
  };
}
/**
 * Backup codes, shown this once.
 */
export interface BackupCodes {
  codes: string[];
}
/**
 * A code of the authenticator app (six digits) or a backup code.
 */
export interface CodeBody {
  code: string;
}
/**
 * That it is meant.
 */
export interface Confirmation {
  /**
   * Your e-mail address, written out.
   */
  confirm: string;
}
/**
 * Deletions, newest first.
 */
export interface DeletionPage {
  items: DeletionView[];
  next: string | null;
}
/**
 * An account that is being deleted, or was.
 */
export interface DeletionView {
  asked_at: string;
  asked_by: string | null;
  finished_at: string | null;
  id: string;
  /**
   * Rows by table and objects, counted before and after.
   */
  report: {
    [k: string]: unknown;
  };
  user_id: string;
}
/**
 * Deliveries, newest first.
 */
export interface DeliveryPage {
  items: DeliveryView[];
  /**
   * Give it as `cursor` for the next page; null: this is the last.
   */
  next: string | null;
}
/**
 * One webhook of somebody's channel and what became of it; nothing of what was said.
 */
export interface DeliveryView {
  /**
   * That failed.
   */
  attempts: number;
  /**
   * Its body is not kept anymore, so it cannot run again.
   */
  body_dropped: boolean;
  channel: string;
  dead: number;
  /**
   * Whose channel it is.
   */
  email: string;
  endpoint_id: string;
  error: FaultView | null;
  finished_at: string | null;
  id: string;
  /**
   * Nobody knows whether a try to send it had gone through.
   */
  may_be_double: boolean;
  pending: number;
  received_at: string;
  /**
   * How often somebody had it run again.
   */
  replays: number;
  /**
   * Messages of its answer that were sent; likewise `pending` and `dead`.
   */
  sent: number;
  state: State;
}
/**
 * What went wrong, or why nothing was done.
 */
export interface FaultView {
  code: string;
  message: string;
}
/**
 * A group's name, and what it is for.
 */
export interface GroupBody {
  description?: string | null;
  name: string;
}
/**
 * Whom to ask.
 */
export interface GroupInvitationBody {
  email: string;
  role?: "member" | "admin";
}
/**
 * Open invitations, newest first.
 */
export interface GroupInvitationPage {
  items: GroupInvitationView[];
  next?: null;
}
/**
 * An open invitation.
 */
export interface GroupInvitationView {
  created_at: string;
  email: string;
  expires_at: string;
  group_id: string;
  group_name: string;
  id: string;
  role: "member" | "admin";
}
/**
 * All that one is in, by name.
 */
export interface GroupPage {
  items: GroupView[];
  next?: null;
}
/**
 * A group, to one of its members.
 */
export interface GroupView {
  created_at: string;
  description: string | null;
  id: string;
  /**
   * The providers' keys that it shares, never the values.
   */
  key_names: string[];
  members: number;
  name: string;
  role: "member" | "admin";
}
/**
 * Whether there is a vault of the old production to be unlocked.
 */
export interface ImportedView {
  imported_at?: string | null;
  /**
   * No attempt is taken before.
   */
  retry_at?: string | null;
  there: boolean;
  unlocked_at?: string | null;
}
/**
 * Invitations, newest first.
 */
export interface InvitationPage {
  items: InvitationView[];
  next: string | null;
}
/**
 * An invitation.
 */
export interface InvitationView {
  accepted_at: string | null;
  created_at: string;
  email: string;
  expires_at: string;
  id: string;
  revoked_at: string | null;
  role: "user" | "admin" | "auditor";
}
/**
 * An item as it may be shown.
 */
export interface ItemView {
  created_at: string;
  /**
   * Its last four characters.
   */
  hint: string | null;
  kind: "provider_key" | "token" | "note";
  last_used_at: string | null;
  name: string;
  updated_at: string;
  /**
   * What used it last: `broker`, for a call to a model.
   */
  used_by: string | null;
  uses: number;
  version: number;
}
/**
 * All items of the vault.
 */
export interface ItemsView {
  items: ItemView[];
  next?: null;
}
/**
 * A provider's key, for the agents of all members.
 */
export interface KeyBody {
  value: string;
}
/**
 * All keys, newest first, and what there is to choose from for a new one.
 */
export interface KeyPage {
  items: KeyView[];
  next?: null;
  /**
   * Every scope, with what it allows.
   */
  scopes: {
    [k: string]: string;
  };
}
/**
 * A key, without its secret.
 */
export interface KeyView {
  created_at: string;
  expires_at: string | null;
  id: string;
  last_address: string | null;
  last_used_at: string | null;
  name: string;
  /**
   * Its first characters, by which you know it again.
   */
  prefix: string;
  scopes: string[];
}
/**
 * A JSON Web Key Set (RFC 7517).
 */
export interface KeySetView {
  keys: {
    [k: string]: unknown;
  }[];
}
/**
 * How much may be used.
 */
export interface LimitsView {
  daily_tokens: number;
  turn_calls: number;
}
/**
 * Who wants a link.
 */
export interface LinkRequest {
  email: string;
}
/**
 * The token of a link, from its fragment.
 */
export interface LinkUse {
  /**
   * Sign in here although another browser has asked for the link.
   */
  confirm?: boolean;
  token: string;
}
/**
 * An invitation that was just sent.
 */
export interface MadeInvitation {
  id: string;
}
/**
 * A key that was just made.
 */
export interface MadeKey {
  created_at: string;
  expires_at: string | null;
  id: string;
  /**
   * The key itself: it is shown this once and never again.
   */
  key: string;
  last_address: string | null;
  last_used_at: string | null;
  name: string;
  /**
   * Its first characters, by which you know it again.
   */
  prefix: string;
  scopes: string[];
}
/**
 * The one that was just registered.
 */
export interface MadePasskey {
  id: string;
}
/**
 * What users may change of themselves; what is not given stays, a name of null is taken away.
 */
export interface MeChange {
  email?: string;
  name?: string | null;
}
/**
 * A user, to themselves.
 */
export interface MeView {
  created_at: string;
  email: string;
  id: string;
  is_admin: boolean;
  name: string | null;
  role: "user" | "admin" | "auditor";
}
/**
 * Members.
 */
export interface MemberPage {
  items: MemberView[];
  next: string | null;
}
/**
 * A member.
 */
export interface MemberView {
  email: string;
  joined_at: string;
  name: string | null;
  role: "member" | "admin";
  user_id: string;
}
/**
 * What one has, beside the first proof.
 */
export interface MfaView {
  /**
   * How many are left.
   */
  backup_codes: number;
  /**
   * Whether this account must have a second factor.
   */
  demanded: boolean;
  passkeys: number;
  totp: boolean;
  totp_since: string | null;
}
/**
 * What to call it.
 */
export interface NameBody {
  name: string;
}
/**
 * Rows of everybody, newest first.
 */
export interface NamedRowPage {
  items: NamedRowView[];
  /**
   * Give it as `before` for the next page; null: this is the last.
   */
  next: number | null;
}
/**
 * The same to administrators, who know people by their addresses.
 */
export interface NamedRowView {
  action: string;
  /**
   * Null: nobody, or somebody who was deleted.
   */
  actor_email: string | null;
  /**
   * Who did it; null: the platform, or nobody known.
   */
  actor_id: string | null;
  at: string;
  /**
   * Null: erased with the account that they named.
   */
  details: {
    [k: string]: unknown;
  } | null;
  /**
   * Of this row and all before it, hexadecimal.
   */
  hash: string;
  id: number;
  subject_email: string | null;
  /**
   * Whose account it concerns.
   */
  subject_id: string | null;
}
/**
 * Whom to invite.
 */
export interface NewInvitation {
  email: string;
  role?: "user" | "admin" | "auditor";
}
/**
 * What a key is to be called and used for.
 */
export interface NewKey {
  /**
   * Null: it does not expire.
   */
  expires_at?: string | null;
  name: string;
  /**
   * @maxItems 20
   */
  scopes: string[];
}
/**
 * A new passkey (RegistrationResponseJSON), and what to call it.
 */
export interface NewPasskey {
  credential: {
    [k: string]: unknown;
  };
  name: string;
}
/**
 * Whom an administrator lets in.
 */
export interface NewUser {
  email: string;
  name?: string | null;
  role?: "user" | "admin" | "auditor";
}
/**
 * What to store.
 */
export interface NewValue {
  /**
   * Not said: a provider's key where the name says so, else a token.
   */
  kind?: ("provider_key" | "token" | "note") | null;
  value: string;
}
/**
 * What the browser is to ask an authenticator, as WebAuthn's JSON.
 */
export interface OptionsView {
  options: {
    [k: string]: unknown;
  };
}
/**
 * Oneself, and what stands in one's way.
 */
export interface OwnView {
  created_at: string;
  email: string;
  id: string;
  /**
   * The administrator who looks through this user's eyes.
   */
  impersonated_by: string | null;
  is_admin: boolean;
  /**
   * A second factor has to be set up before anything else.
   */
  must_enrol: boolean;
  name: string | null;
  role: "user" | "admin" | "auditor";
}
/**
 * One's passkeys, oldest first.
 */
export interface PasskeyPage {
  items: PasskeyView[];
  next?: null;
}
/**
 * A passkey.
 */
export interface PasskeyView {
  /**
   * Whether it is synchronised, so that it outlives its device.
   */
  backed_up: boolean;
  created_at: string;
  id: string;
  last_used_at: string | null;
  name: string;
}
/**
 * The password that the vault had there.
 */
export interface Password {
  password: string;
}
/**
 * Totals of one user since some moment. `tokens` is the number that the daily limit is about.
 */
export interface PeriodUsage {
  cache_read_tokens: number;
  cache_write_tokens: number;
  calls: number;
  input_tokens: number;
  output_tokens: number;
  tokens: number;
  unfinished: number;
}
/**
 * The twelve words of recovery.
 */
export interface Phrase {
  phrase: string;
}
/**
 * Why a request was refused, or failed (RFC 9457).
 */
export interface Problem {
  /**
   * A word for programs; it stays.
   */
  code: string;
  /**
   * A sentence for people.
   */
  detail: string;
  /**
   * Where the fault is ours: its number in the log.
   */
  request_id?: string;
  /**
   * Whether the same request may succeed later.
   */
  retryable: boolean;
  status: number;
  title: string;
  /**
   * Always `about:blank`: the code says what it is.
   */
  type: string;
}
/**
 * A provider that the sign-in page offers.
 */
export interface ProviderView {
  id: string;
  label: string;
}
/**
 * The ways to sign in.
 */
export interface ProvidersView {
  magic_link: boolean;
  oidc: ProviderView[];
  passkeys: boolean;
}
/**
 * Why.
 */
export interface Reason {
  reason: string;
}
/**
 * Which are to run again: those of `ids`, or those that came in from `from` until before `to`.
 */
export interface ReplayOfAll {
  /**
   * Those of this user alone.
   */
  email?: string | null;
  from?: string | null;
  ids?: string[] | null;
  /**
   * If not said: of a time those that are dead, of ids all.
   */
  states?: ("done" | "ignored" | "waiting" | "dead")[] | null;
  to?: string | null;
}
/**
 * How many run again.
 */
export interface Replayed {
  count: number;
}
/**
 * Resources, by name.
 */
export interface ResourcePage {
  items: ResourceView[];
  next?: null;
}
/**
 * Something of the old production's, kept to be seen.
 */
export interface ResourceView {
  created_at: string;
  description: string | null;
  endpoint: string;
  group_id: string;
  id: string;
  name: string;
  resource_type: string;
  status: string;
}
/**
 * What a member may do.
 */
export interface RoleBody {
  role: "member" | "admin";
}
/**
 * Rows, newest first.
 */
export interface RowPage {
  items: RowView[];
  /**
   * Give it as `before` for the next page; null: this is the last.
   */
  next: number | null;
}
/**
 * One thing that was done.
 */
export interface RowView {
  action: string;
  /**
   * Who did it; null: the platform, or nobody known.
   */
  actor_id: string | null;
  at: string;
  /**
   * Null: erased with the account that they named.
   */
  details: {
    [k: string]: unknown;
  } | null;
  /**
   * Of this row and all before it, hexadecimal.
   */
  hash: string;
  id: number;
  /**
   * Whose account it concerns.
   */
  subject_id: string | null;
}
/**
 * An address or a domain whose people may make an account, where the policy lets listed ones in.
 */
export interface RuleView {
  created_at: string;
  kind: "address" | "domain";
  value: string;
}
/**
 * All rules, and the policy that they add to.
 */
export interface RulesView {
  /**
   * What OCMT_SIGN_UP_ALLOWED lists.
   */
  from_settings: string[];
  items: RuleView[];
  mode: string;
  next?: null;
}
/**
 * Half way in: the second proof goes to `auth/mfa`, or to `auth/passkey/verify`.
 */
export interface SecondFactorView {
  methods: ("passkey" | "totp" | "backup_code")[];
  mfa_required?: true;
}
/**
 * All live login sessions, most recently used first; there is no next page.
 */
export interface SessionPage {
  items: SessionView[];
  next?: null;
}
/**
 * A login session, to its user.
 */
export interface SessionView {
  address: string | null;
  created_at: string;
  /**
   * Whether it is the one that asks.
   */
  current: boolean;
  expires_at: string;
  id: string;
  impersonated: boolean;
  last_seen_at: string;
  methods: string[];
  user_agent: string | null;
}
/**
 * Shares, newest first.
 */
export interface SharePage {
  items: ShareView[];
  next?: null;
}
/**
 * What was granted to one in the old production.
 */
export interface ShareView {
  granted_at: string;
  id: string;
  permissions: {
    [k: string]: unknown;
  };
  resource_id: string;
  resource_name: string;
  status: string;
}
/**
 * Who is signed in now.
 */
export interface SignedIn {
  created_at: string;
  email: string;
  id: string;
  is_admin: boolean;
  mfa_required?: false;
  name: string | null;
  role: "user" | "admin" | "auditor";
}
/**
 * The ways in which an account can prove once more whose it is.
 */
export interface StepUpView {
  /**
   * `link`: there is no second factor, so a link by mail is the proof.
   */
  methods: ("passkey" | "totp" | "backup_code" | "link")[];
  /**
   * Whether the last proof still counts, so that none is due.
   */
  recent: boolean;
}
/**
 * How much of one store you keep.
 */
export interface StorageView {
  bytes: number;
  /**
   * Conversations, deliveries, files or snapshots.
   */
  count: number;
  most_bytes: number;
  /**
   * How many may be kept; null: as many as fit.
   */
  most_count: number | null;
  /**
   * When something was last refused because the store was full; kept for deliveries.
   */
  refused_at: string | null;
  store: Store;
}
/**
 * What was stored.
 */
export interface StoredView {
  name: string;
  version: number;
}
/**
 * What the token is to be used for.
 */
export interface TokenRequest {
  /**
   * Scopes with spaces between them; not said: all that you have yourself.
   */
  scope?: string | null;
}
/**
 * An access token, as OAuth 2 answers (RFC 6749, 5.1).
 */
export interface TokenView {
  access_token: string;
  /**
   * Seconds.
   */
  expires_in: number;
  scope: string;
  token_type?: "Bearer";
}
/**
 * What the authenticator app is to be shown. It counts once a code of it was given back.
 */
export interface TotpView {
  qr_svg: string;
  secret: string;
  uri: string;
}
/**
 * What the provider says of a key.
 */
export interface TrialView {
  detail: string;
  verdict: "works" | "refused" | "no_permission" | "limited" | "unreachable";
}
/**
 * The items that came of it.
 */
export interface UnlockedView {
  names: string[];
}
/**
 * Totals of today and this month (UTC), and the limits; `daily_tokens` limits `today.tokens`.
 */
export interface UsageView {
  limits: LimitsView;
  month: PeriodUsage;
  /**
   * What you keep, by store, and how much you may.
   */
  storage: StorageView[];
  today: PeriodUsage;
}
/**
 * What an administrator changes of a user; what is not given stays.
 */
export interface UserChange {
  mfa_required?: boolean | null;
  role?: ("user" | "admin" | "auditor") | null;
  status?: ("active" | "suspended") | null;
}
/**
 * Users, oldest first.
 */
export interface UserPage {
  items: UserView[];
  /**
   * Give it as `after` for the next page; null: this is the last.
   */
  next: string | null;
}
/**
 * A user, to an administrator.
 */
export interface UserView {
  created_at: string;
  email: string;
  id: string;
  is_admin: boolean;
  mfa_required: boolean;
  name: string | null;
  role: "user" | "admin" | "auditor";
  status: "active" | "pending" | "suspended" | "deleting";
}
/**
 * A value in the clear.
 */
export interface ValueView {
  value: string;
}
/**
 * A value before the present one.
 */
export interface VersionView {
  replaced_at: string;
  version: number;
}
/**
 * Those that are kept, newest first.
 */
export interface VersionsView {
  items: VersionView[];
  next?: null;
}
