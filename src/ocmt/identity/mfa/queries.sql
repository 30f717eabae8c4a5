-- name: begin_totp^
-- No row: one is in use already.
insert into totp_secrets (user_id, sealed, created_at) values (:user_id, :sealed, :now)
on conflict (user_id) do update set sealed = excluded.sealed, created_at = excluded.created_at, last_step = 0
where totp_secrets.confirmed_at is null
returning user_id;

-- name: find_totp^
select sealed, confirmed_at, last_step from totp_secrets where user_id = :user_id;

-- name: take_step^
-- Of two requests with one code only one gets a row.
update totp_secrets set last_step = :step where user_id = :user_id and last_step < :step returning user_id;

-- name: confirm_totp!
update totp_secrets set confirmed_at = :now where user_id = :user_id;

-- name: remove_totp^
delete from totp_secrets where user_id = :user_id returning confirmed_at;

-- name: find_backup_codes
-- The one that the keyed hash names, and imported ones, which have none.
select id, code_hash from backup_codes
where user_id = :user_id and used_at is null and (lookup = :lookup or lookup is null)
order by lookup nulls last
limit 8;

-- name: use_backup_code^
update backup_codes set used_at = :now where id = :id and user_id = :user_id and used_at is null returning id;

-- name: count_backup_codes$
select count(*) from backup_codes where user_id = :user_id and used_at is null;

-- name: forget_backup_codes!
delete from backup_codes where user_id = :user_id;

-- name: add_backup_codes!
insert into backup_codes (id, user_id, code_hash, lookup, created_at)
select id, :user_id, code_hash, lookup, :now
from unnest(:ids::uuid[], :hashes::text[], :lookups::bytea[]) as new(id, code_hash, lookup);
