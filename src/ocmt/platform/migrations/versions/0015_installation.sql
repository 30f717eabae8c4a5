-- Which installation this database belongs to. Its secret store and its object store carry the same id, so that
-- parts which do not belong together are told apart before anything is written.
create table installation (
    only_one boolean primary key default true check (only_one),
    id uuid not null default gen_random_uuid(),
    -- Whether the stores were marked with the id. Until then, the first process that starts marks its own.
    marked boolean not null default false,
    -- The newest revision that a program must know to work over this schema. A migration that an older program
    -- cannot live with raises it.
    needs_revision text not null default '0014'
);
insert into installation default values;
