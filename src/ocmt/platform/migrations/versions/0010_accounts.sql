-- Tokens, codes and keys are stored as hashes; what must be read again is sealed (platform/sealing.py).

-- Users and how they sign in

alter table users
  add column role text not null default 'user' check (role in ('user', 'admin', 'auditor')),
  add column mfa_required boolean not null default false,
  -- Whoever holds an access token (JWT) issued before this moment is nobody.
  add column tokens_valid_from timestamptz not null default '-infinity';
update users set role = 'admin' where is_admin;
-- The program before reads and writes is_admin; a later contraction drops it.
alter table users drop constraint users_status_check;
alter table users add constraint users_status_check
  check (status in ('active', 'pending', 'suspended', 'deleting'));

alter table login_sessions
  add column address text,                        -- from where it was opened
  add column authenticated_at timestamptz not null default now(),   -- the last time the user proved who they are
  add column methods text[] not null default '{}',                  -- by what: link, oidc:google, passkey, totp, backup_code
  add column impersonator_id uuid references users on delete cascade,
  add column impersonation_reason text;

alter table sign_in_links
  add column browser_hash bytea;                  -- of the browser that asked; null: handed over in person

create table sign_in_challenges (                 -- proved once, and to be proved a second time
  token_hash  bytea primary key,
  user_id     uuid not null references users on delete cascade,
  methods     text[] not null,
  attempts    integer not null default 0,
  created_at  timestamptz not null,
  expires_at  timestamptz not null
);
create index sign_in_challenges_user on sign_in_challenges (user_id);

create table sign_up_rules (                      -- beside the settings: who may make an account
  kind        text not null check (kind in ('address', 'domain')),
  value       text not null,                      -- in lower case
  created_at  timestamptz not null,
  created_by  uuid references users on delete set null,
  primary key (kind, value)
);

create table invitations (                        -- into this installation
  id           uuid primary key,
  email        text not null,
  role         text not null default 'user' check (role in ('user', 'admin', 'auditor')),
  token_hash   bytea not null unique,
  invited_by   uuid references users on delete set null,
  created_at   timestamptz not null,
  expires_at   timestamptz not null,
  accepted_at  timestamptz,
  revoked_at   timestamptz
);
create index invitations_email on invitations (lower(email));

create table oidc_attempts (
  state_hash    bytea primary key,
  provider      text not null,
  browser_hash  bytea not null,
  nonce         text not null,
  verifier      text not null,                    -- of PKCE: worthless without the browser's cookie and the code
  user_id       uuid references users on delete cascade,   -- who links a provider to the account they have
  created_at    timestamptz not null,
  expires_at    timestamptz not null
);

create table oidc_accounts (
  id            uuid primary key,
  provider      text not null,
  subject       text not null,
  user_id       uuid not null references users on delete cascade,
  email         text not null,
  created_at    timestamptz not null,
  last_used_at  timestamptz,
  unique (provider, subject)
);
create index oidc_accounts_user on oidc_accounts (user_id);

create table passkeys (
  id             uuid primary key,
  user_id        uuid not null references users on delete cascade,
  credential_id  bytea not null unique,
  public_key     bytea not null,
  sign_count     bigint not null,
  name           text not null,
  transports     text[] not null default '{}',
  backed_up      boolean not null default false,
  created_at     timestamptz not null,
  last_used_at   timestamptz
);
create index passkeys_user on passkeys (user_id);

create table passkey_challenges (
  challenge   bytea primary key,
  purpose     text not null check (purpose in ('register', 'sign_in', 'second_factor')),
  user_id     uuid references users on delete cascade,
  created_at  timestamptz not null,
  expires_at  timestamptz not null
);

create table totp_secrets (
  user_id       uuid primary key references users on delete cascade,
  sealed        bytea not null,
  confirmed_at  timestamptz,                      -- null: the QR code was shown, no code was given back yet
  last_step     bigint not null default 0,        -- of the latest code taken: none is taken twice
  created_at    timestamptz not null
);

create table backup_codes (
  id          uuid primary key,
  user_id     uuid not null references users on delete cascade,
  code_hash   text not null,                      -- Argon2id, PHC string
  lookup      bytea,                              -- keyed hash, to find the one to verify; null: imported
  created_at  timestamptz not null,
  used_at     timestamptz
);
create index backup_codes_user on backup_codes (user_id);

create table api_keys (
  id            uuid primary key,
  user_id       uuid not null references users on delete cascade,
  name          text not null,
  prefix        text not null,                    -- what may be shown of it
  key_hash      bytea not null unique,
  scopes        text[] not null,
  created_at    timestamptz not null,
  expires_at    timestamptz,
  last_used_at  timestamptz,
  last_address  text,
  revoked_at    timestamptz
);
create index api_keys_user on api_keys (user_id);

-- Rates: the theoretical arrival time of the generic cell rate algorithm. Not worth a log: a crash forgets them.
create unlogged table rate_limits (
  key         text primary key,
  arrival     timestamptz not null,
  expires_at  timestamptz not null
);
create index rate_limits_expiry on rate_limits (expires_at);

-- What was done by whom. Rows are only ever added; what names a person can be erased, and the chain still holds:
-- hash = sha256(previous hash, id, at, action, actor_id, subject_id, details_hash), details_hash = sha256(salt, details).
create table audit_log (
  id            bigint primary key,
  at            timestamptz not null,
  action        text not null,
  actor_id      uuid,                             -- null: the platform, or nobody known
  subject_id    uuid,                             -- whose account it concerns
  salt          bytea,                            -- null: erased
  details       jsonb,                            -- address, session, before, after: null: erased
  details_hash  bytea not null,
  previous      bytea not null,
  hash          bytea not null
);
create index audit_log_subject on audit_log (subject_id, id desc);
create index audit_log_actor on audit_log (actor_id, id desc);

create table audit_head (                         -- one row: the end of the chain, and where what is kept begins
  single    boolean primary key default true check (single),
  last_id   bigint not null,
  hash      bytea not null,
  first_id  bigint not null,                      -- of the oldest row that is kept
  anchor    bytea not null                        -- the hash before it
);
insert into audit_head (last_id, hash, first_id, anchor) values (0, '\x', 1, '\x');

-- Groups

create table groups (
  id           uuid primary key,
  name         text not null,
  description  text,
  created_at   timestamptz not null,
  created_by   uuid references users on delete set null
);

create table group_members (
  group_id   uuid not null references groups on delete cascade,
  user_id    uuid not null references users on delete cascade,
  role       text not null check (role in ('member', 'admin')),
  joined_at  timestamptz not null,
  primary key (group_id, user_id)
);
create index group_members_user on group_members (user_id);

create table group_invitations (
  id          uuid primary key,
  group_id    uuid not null references groups on delete cascade,
  email       text not null,
  role        text not null check (role in ('member', 'admin')),
  invited_by  uuid references users on delete set null,
  created_at  timestamptz not null,
  expires_at  timestamptz not null,
  decided_at  timestamptz,
  decision    text check (decision in ('accepted', 'declined', 'withdrawn'))
);
create index group_invitations_email on group_invitations (lower(email));
create index group_invitations_group on group_invitations (group_id);

-- Of the production before: kept and shown, not acted on.
create table group_resources (
  id             uuid primary key,
  group_id       uuid not null references groups on delete cascade,
  name           text not null,
  description    text,
  resource_type  text not null,
  endpoint       text not null,
  sealed_auth    bytea,
  metadata       jsonb not null default '{}',
  status         text not null,
  created_at     timestamptz not null
);
create index group_resources_group on group_resources (group_id);

create table resource_shares (
  id           uuid primary key,
  resource_id  uuid not null references group_resources on delete cascade,
  user_id      uuid not null references users on delete cascade,
  permissions  jsonb not null,                    -- {"list", "read", "write", "delete", "admin", "share"}
  status       text not null,
  granted_by   uuid references users on delete set null,
  granted_at   timestamptz not null
);
create index resource_shares_user on resource_shares (user_id);
create index resource_shares_resource on resource_shares (resource_id);

-- The vault

alter table vault_keys
  add column version integer not null default 1,         -- of the user's data key
  add column master_version integer not null default 1;  -- of the master key that wraps it

alter table vault_items
  add column kind text not null default 'provider_key' check (kind in ('provider_key', 'token', 'note')),
  add column key_version integer not null default 1,     -- of the data key that seals it
  add column created_at timestamptz not null default now(),
  add column last_used_at timestamptz,
  add column used_by text,                               -- what used it last: broker
  add column uses bigint not null default 0;

create table vault_item_versions (                       -- the values before the present one
  user_id      uuid not null,
  name         text not null,
  version      integer not null,
  ciphertext   bytea not null,
  key_version  integer not null,
  replaced_at  timestamptz not null,
  primary key (user_id, name, version),
  foreign key (user_id, name) references vault_items (user_id, name) on delete cascade
);

create table vault_master (                              -- which version of the master key wraps new data keys
  single   boolean primary key default true check (single),
  current  integer not null
);
insert into vault_master (current) values (1);

create table group_vault_keys (
  group_id        uuid primary key references groups on delete cascade,
  wrapped         bytea not null,
  master_version  integer not null default 1,
  created_at      timestamptz not null default now()
);

create table group_vault_items (
  group_id      uuid not null references groups on delete cascade,
  name          text not null,
  version       integer not null,
  ciphertext    bytea not null,
  hint          text,
  updated_at    timestamptz not null default now(),
  updated_by    uuid references users on delete set null,
  last_used_at  timestamptz,
  uses          bigint not null default 0,
  primary key (group_id, name)
);

alter table model_calls drop constraint model_calls_key_source_check;
alter table model_calls add constraint model_calls_key_source_check
  check (key_source in ('user', 'group', 'platform', 'demo'));

create table imported_vaults (                           -- opaque until their user unlocks them
  user_id      uuid primary key references users on delete cascade,
  document     jsonb not null,
  imported_at  timestamptz not null default now(),
  unlocked_at  timestamptz,
  failures     integer not null default 0,
  retry_at     timestamptz
);

-- Deletions of accounts: resumed after a crash, and their report kept when the user is gone.
create table account_deletions (
  id           uuid primary key,
  user_id      uuid not null unique,
  asked_at     timestamptz not null,
  asked_by     uuid,
  finished_at  timestamptz,
  report       jsonb not null default '{}'
);
