-- Expands only: a program of before writes and reads as it did.

create table revisions (
  number      integer primary key check (number > 0),  -- a later one is newer
  image       text not null,           -- what the runtime runs: a version of OpenClaw, or a container's image
  config      jsonb not null default '{}',             -- merged into OpenClaw's configuration (RFC 7396)
  share       smallint not null check (share between 0 and 100),   -- percent of the users; 100: everybody
  withdrawn   boolean not null default false,
  created_at  timestamptz not null
);

alter table agents
  add column revision integer references revisions,      -- the last one that it ran, and that passed; null: none yet
  add column revision_pin integer references revisions;  -- the one that an operator wants it to run

create table revision_trials (
  user_id     uuid not null references agents (user_id) on delete cascade,
  revision    integer not null references revisions,
  generation  bigint,                  -- the snapshot from before it; null: the runtime keeps no files
  attempt     smallint not null default 1,
  open        boolean not null,        -- it may have written files that are still to be put back
  outcome     text check (outcome in ('passed', 'refused')),
  reason      text,
  at          timestamptz not null,
  primary key (user_id, revision)
);
create unique index revision_trials_open on revision_trials (user_id) where open;
create index revision_trials_revision on revision_trials (revision);
