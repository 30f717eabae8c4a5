-- Null: as the installation's settings say.
alter table plans
  add column max_awake interval,
  add column disk_bytes bigint check (disk_bytes > 0);
