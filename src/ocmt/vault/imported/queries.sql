-- name: put_document!
insert into imported_vaults (user_id, document, imported_at) values (:user_id, :document, :now)
on conflict (user_id) do update set document = excluded.document, imported_at = excluded.imported_at,
  failures = 0, retry_at = null
where imported_vaults.unlocked_at is null;

-- name: find_document^
select document, imported_at, unlocked_at, failures, retry_at from imported_vaults where user_id = :user_id;

-- name: begin_attempt^
-- Counts the attempt before it is judged; no row: too early, unlocked already, or none.
update imported_vaults set failures = failures + 1, retry_at = :now::timestamptz + least(
  interval '1 hour', interval '1 second' * power(2, least(failures, 20)))
where user_id = :user_id and unlocked_at is null and (retry_at is null or retry_at <= :now)
returning document;

-- name: unlocked!
update imported_vaults set unlocked_at = :now, document = '{}', failures = 0, retry_at = null where user_id = :user_id;
