-- The first schema: identity, vault, agents, chat, usage. One table a thing, named as in docs/architecture.md.

create table users (
  id          uuid primary key,
  email       text not null,
  name        text,
  is_admin    boolean not null default false,
  status      text not null default 'active' check (status in ('active', 'suspended')),
  created_at  timestamptz not null default now()
);
create unique index users_email on users (lower(email));

create table login_sessions (
  id            uuid primary key,
  user_id       uuid not null references users on delete cascade,
  token_hash    bytea not null unique,
  user_agent    text,
  created_at    timestamptz not null default now(),
  last_seen_at  timestamptz not null default now(),
  expires_at    timestamptz not null,
  revoked_at    timestamptz
);
create index login_sessions_user on login_sessions (user_id);

create table sign_in_links (
  token_hash  bytea primary key,
  email       text,                    -- null: the start link, for whoever administers this installation
  created_at  timestamptz not null default now(),
  expires_at  timestamptz not null,
  used_at     timestamptz
);
create index sign_in_links_email on sign_in_links (lower(email), created_at);

create table vault_keys (
  user_id     uuid primary key references users on delete cascade,
  wrapped     bytea not null,          -- the user's data key, under the master key
  created_at  timestamptz not null default now()
);

create table vault_items (
  user_id     uuid not null references users on delete cascade,
  name        text not null,
  version     integer not null,
  ciphertext  bytea not null,
  hint        text,                    -- what may be shown: the last four characters
  updated_at  timestamptz not null default now(),
  primary key (user_id, name)
);

create table agents (
  user_id           uuid primary key references users on delete cascade,
  slot              bigint generated always as identity (start with 1) unique,
  runtime           text not null,
  desired           text not null default 'stopped' check (desired in ('awake', 'paused', 'stopped')),
  state             text not null default 'stopped'
                    check (state in ('stopped', 'starting', 'awake', 'paused', 'stopping', 'failed')),
  since             timestamptz not null default now(),
  progress          jsonb,             -- {"step": "gateway", "text": "Starting OpenClaw"} while starting
  runtime_state     jsonb not null default '{}',
  broker_token_hash bytea not null unique,
  egress            boolean not null default false,
  last_active_at    timestamptz not null default now(),
  failures          integer not null default 0,
  retry_at          timestamptz,
  error             jsonb,             -- {"code", "message"} of the last failure
  next_wake_at      timestamptz,
  restart_asked     boolean not null default false,
  image             text,
  lease_owner       text,
  lease_token       bigint not null default 0,
  lease_expires_at  timestamptz
);
create index agents_lease on agents (lease_expires_at);

create table holds (
  user_id     uuid not null references agents (user_id) on delete cascade,
  reason      text not null check (reason in ('turn', 'socket', 'delivery', 'cron', 'operator')),
  reference   text not null,
  created_at  timestamptz not null default now(),
  expires_at  timestamptz not null,
  primary key (user_id, reason, reference)
);

create table conversations (
  id          uuid primary key,
  user_id     uuid not null references users on delete cascade,
  title       text,
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now(),
  last_seq    bigint not null default 0,      -- of its events
  written_seq bigint not null default 0,      -- how far its transcript in the object store reaches
  unique (user_id, id)
);
create index conversations_user on conversations (user_id, updated_at desc);

create table turns (
  id               uuid primary key,
  conversation_id  uuid not null,
  user_id          uuid not null,
  idempotency_key  text not null,
  text             text not null,
  attachments      jsonb not null default '[]',
  status           text not null default 'accepted'
                   check (status in ('accepted', 'running', 'completed', 'failed', 'stopped')),
  attempt          integer not null default 1,
  run_id           text,
  stop_requested   boolean not null default false,
  answer           text,
  usage            jsonb,
  error            jsonb,
  created_at       timestamptz not null default now(),
  started_at       timestamptz,
  finished_at      timestamptz,
  foreign key (user_id, conversation_id) references conversations (user_id, id) on delete cascade,
  unique (conversation_id, idempotency_key)
);
create index turns_open on turns (user_id, created_at) where status in ('accepted', 'running');
create index turns_conversation on turns (conversation_id, created_at);

create table events (
  conversation_id  uuid not null references conversations on delete cascade,
  seq              bigint not null,
  turn_id          uuid references turns on delete cascade,
  type             text not null,
  data             jsonb not null,
  created_at       timestamptz not null default now(),
  primary key (conversation_id, seq)
);
create index events_turn on events (turn_id);

create table model_calls (
  id                  uuid primary key,
  user_id             uuid not null references users on delete cascade,
  turn_id             uuid,            -- null: a call outside any turn
  provider            text not null,   -- anthropic, demo
  model               text not null,
  key_source          text not null check (key_source in ('user', 'platform', 'demo')),
  started_at          timestamptz not null default now(),
  finished_at         timestamptz,
  status              integer,         -- the provider's HTTP status; null while under way
  error_code          text,            -- ours: provider_key_refused, provider_overloaded, turn_call_limit, …
  error_message       text,            -- in plain words, for the user; at times the provider's own
  input_tokens        bigint not null default 0,
  output_tokens       bigint not null default 0,
  cache_read_tokens   bigint not null default 0,
  cache_write_tokens  bigint not null default 0
);
create index model_calls_user_day on model_calls (user_id, started_at);
create index model_calls_turn on model_calls (turn_id);
