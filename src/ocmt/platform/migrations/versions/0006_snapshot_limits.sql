-- Expands only: a program of before writes and reads as it did.

alter table plans
  add column snapshot_files      bigint check (snapshot_files > 0),       -- files, folders and links of one agent
  add column snapshot_bytes      bigint check (snapshot_bytes > 0),       -- of all its files together
  add column snapshot_file_bytes bigint check (snapshot_file_bytes > 0);  -- of each

update plans set snapshot_files = 200000, snapshot_bytes = 10737418240, snapshot_file_bytes = 2147483648
where name = 'pro';
update plans set snapshot_files = 500000, snapshot_bytes = 53687091200, snapshot_file_bytes = 5368709120
where name = 'enterprise';

alter table agents
  add column saved_at timestamptz,     -- the newest moment of which all files are saved; snapshot_at: of which one exists
  add column save_problem jsonb,       -- {"code", "message"}: why nothing has been saved since; null: nothing is wrong
  add column import_asked text;        -- SHA-256 of the archive that its user has sent, to be put in place

update agents set saved_at = snapshot_at;
