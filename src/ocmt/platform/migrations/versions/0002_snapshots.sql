-- Snapshots: a generation exists from the moment that its row does. What lies in the object store without a row
-- was never finished, or comes from a replica that had lost its lease.

create table snapshots (
  user_id     uuid not null references agents (user_id) on delete cascade,
  generation  bigint not null check (generation > 0),
  created_at  timestamptz not null,
  image       text,                    -- the revision of the agent's image that it ran
  files       bigint not null,
  bytes       bigint not null,
  manifest    text not null,           -- SHA-256 of the manifest: nobody can put another in its place
  content     text not null,           -- SHA-256 of what is kept, whatever the generation
  primary key (user_id, generation)
);

alter table agents
  add column snapshot_generation bigint not null default 0,   -- the newest; 0: none yet
  add column snapshot_at timestamptz,
  add column restore_asked bigint;     -- the generation that its user wants back, for the lease's holder to see to
