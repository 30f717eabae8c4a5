-- A program that an agent has left running in the background can keep it awake.
alter table holds drop constraint holds_reason_check;
alter table holds add constraint holds_reason_check
  check (reason in ('turn', 'socket', 'delivery', 'cron', 'transfer', 'operator', 'approval', 'job'));
