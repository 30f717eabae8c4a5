alter table conversations add column last_batch uuid;
