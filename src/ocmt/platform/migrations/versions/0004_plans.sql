create table plans (
  name           text primary key check (name ~ '^[a-z][a-z0-9-]{0,31}$'),
  memory_bytes   bigint check (memory_bytes > 0),          -- null, here and below: as the installation's settings say
  cpus           double precision check (cpus > 0),
  pids           integer check (pids > 0),
  pause_after    interval,
  stop_after     interval
);

insert into plans (name, memory_bytes, cpus, pids, pause_after, stop_after) values
  ('free', null, null, null, null, null),
  ('pro', 3221225472, 2, 1024, interval '1 hour', interval '12 hours'),
  ('enterprise', 4294967296, 4, 2048, interval '4 hours', interval '3 days');

alter table agents add column plan text not null default 'free' references plans on update cascade;
