-- What people send as one thing is one turn, control words pass the queue, and who may give commands.

-- OpenClaw interprets commands in a message only where its owner has written it.
alter table turns add column commands boolean not null default true;

alter table deliveries
  add column urgent     boolean not null default false,  -- may pass the queue of its thread: a stop phrase, perhaps
  add column together   text,                            -- what it may be one message with; null: alone
  add column joined_to  uuid;                            -- the delivery whose message it is part of; its own id: the first
create index deliveries_urgent on deliveries (endpoint_id, thread, received_at, id) where urgent and state = 'accepted';
create index deliveries_joined on deliveries (joined_to) where joined_to is not null;

-- Bodies that were signed without a time, and whose deliveries are forgotten: they never count as new again.
create table deliveries_forgotten (
  user_id      uuid not null,
  endpoint_id  uuid not null,
  external_id  text not null,
  forgotten_at timestamptz not null,
  primary key (endpoint_id, external_id),
  foreign key (user_id, endpoint_id) references channel_endpoints (user_id, id) on delete cascade
);
create index deliveries_forgotten_oldest on deliveries_forgotten (endpoint_id, forgotten_at);
