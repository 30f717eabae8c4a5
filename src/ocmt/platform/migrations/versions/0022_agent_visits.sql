-- Sign-ins at the agents' own host name (OCMT_AGENT_URL). Each belongs to a login session and ends with it.
create table agent_visits (
  token_hash bytea primary key,
  user_id uuid not null references users (id) on delete cascade,
  session_id uuid not null references login_sessions (id) on delete cascade,
  -- Of a ticket that is not redeemed yet: the browser that may do it. Null: the visit has begun.
  binding text,
  created_at timestamptz not null,
  expires_at timestamptz not null
);
create index agent_visits_session on agent_visits (user_id, session_id);
