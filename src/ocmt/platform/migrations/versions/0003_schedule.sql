-- Expands only: a program of before writes and reads as it did.

alter table agents add column schedule jsonb;
-- As last told by its gateway: {"read_at", "enabled", "left_out", "jobs": [{"id", "name", "kind", "timing", …}]},
-- bounded by openclaw/schedule.py; null as long as nobody has asked it.

create index agents_next_wake on agents (next_wake_at) where next_wake_at is not null;

alter table holds add column note text;      -- an operator's own words
alter table holds drop constraint holds_reason_check;
alter table holds add constraint holds_reason_check
  check (reason in ('turn', 'socket', 'delivery', 'cron', 'transfer', 'operator', 'approval'));
create index holds_expiry on holds (expires_at);
