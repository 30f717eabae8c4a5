-- Channels: what other services send us, and what we owe them.

-- One connected channel of one user. Its id is in the address that the vendor calls, and is random.
create table channel_endpoints (
  id          uuid primary key,
  user_id     uuid not null references users on delete cascade,
  channel     text not null,                      -- the kind: telegram, slack, github, signed
  name        text not null,
  settings    jsonb not null default '{}',        -- what may be shown
  sealed      bytea not null,                     -- tokens and secrets, encrypted, bound to user and endpoint
  active      boolean not null default true,      -- false: its webhooks are answered as if it did not exist
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now(),
  unique (user_id, id)
);

-- Who has written to an endpoint, and whether its owner lets them in.
create table channel_senders (
  user_id          uuid not null,
  endpoint_id      uuid not null,
  sender           text not null,                 -- the channel's id of them
  name             text not null default '',
  state            text not null check (state in ('pending', 'approved', 'blocked')),
  code_hash        bytea,                         -- of the code that they were told; null: told none
  code_expires_at  timestamptz,
  told_at          timestamptz,                   -- when a code was last told
  created_at       timestamptz not null default now(),
  updated_at       timestamptz not null default now(),
  primary key (endpoint_id, sender),
  foreign key (user_id, endpoint_id) references channel_endpoints (user_id, id) on delete cascade
);

-- Which conversation a thread of a channel is. A conversation that is deleted is made anew at the next message.
create table channel_threads (
  user_id          uuid not null,
  endpoint_id      uuid not null,
  thread           text not null,
  conversation_id  uuid not null,
  created_at       timestamptz not null default now(),
  primary key (endpoint_id, thread),
  foreign key (user_id, endpoint_id) references channel_endpoints (user_id, id) on delete cascade,
  foreign key (user_id, conversation_id) references conversations (user_id, id) on delete cascade
);
create index channel_threads_conversation on channel_threads (conversation_id);

-- Every genuine webhook, once. Within (endpoint, thread) they are worked on in the order of received_at, id.
create table deliveries (
  id                uuid primary key,
  user_id           uuid not null,
  endpoint_id       uuid not null,
  external_id       text not null,                -- the sender's own id of it
  thread            text not null,
  body              bytea not null,
  received_at       timestamptz not null,
  state             text not null default 'accepted'
                    check (state in ('accepted', 'answering', 'done', 'ignored', 'waiting', 'dead')),
  attempts          integer not null default 0,   -- that failed
  replays           integer not null default 0,   -- how often somebody had it run again
  next_at           timestamptz not null,         -- not before
  error             jsonb,                        -- {code, message} of the last failure, or why it was ignored
  sender            text,                         -- once it was read
  reply             jsonb,                        -- what it takes to answer it; once it was read
  conversation_id   uuid,                         -- no reference: a conversation may go, this stays
  turn_id           uuid,                         -- no reference: likewise
  typing_at         timestamptz,                  -- when "is typing" was last shown
  finished_at       timestamptz,
  lease_token       bigint not null default 0,
  lease_expires_at  timestamptz,                  -- null: nobody works on it
  unique (endpoint_id, external_id),
  foreign key (user_id, endpoint_id) references channel_endpoints (user_id, id) on delete cascade
);
create index deliveries_open on deliveries (endpoint_id, thread, received_at, id) where state in ('accepted', 'answering');
create index deliveries_answering on deliveries (turn_id) where state = 'answering';
create index deliveries_list on deliveries (endpoint_id, id desc);
create index deliveries_waiting on deliveries (endpoint_id, sender) where state = 'waiting';
create index deliveries_finished on deliveries (finished_at) where finished_at is not null;

-- What we owe a channel, one row a message. Within (endpoint, thread) they are sent in the order of seq.
create table outbox (
  id                uuid primary key,
  seq               bigint generated always as identity,
  user_id           uuid not null,
  endpoint_id       uuid not null,
  delivery_id       uuid not null references deliveries on delete cascade,
  run               integer not null,             -- the delivery's replays; -1: a notice about it, no answer
  part              integer not null,
  thread            text not null,
  reply             jsonb not null,
  text              text not null,
  state             text not null default 'pending' check (state in ('pending', 'sent', 'dead')),
  attempts          integer not null default 0,   -- that failed
  next_at           timestamptz not null,
  error             jsonb,
  may_be_double     boolean not null default false,  -- a try ended so that nobody knows whether it had been sent
  created_at        timestamptz not null,
  sent_at           timestamptz,
  lease_token       bigint not null default 0,
  lease_expires_at  timestamptz,
  foreign key (user_id, endpoint_id) references channel_endpoints (user_id, id) on delete cascade
);
create unique index outbox_once on outbox (delivery_id, run, part) where run >= 0;
create index outbox_delivery on outbox (delivery_id);
create index outbox_open on outbox (endpoint_id, thread, seq) where state = 'pending';
