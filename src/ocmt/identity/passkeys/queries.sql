-- name: add_challenge!
insert into passkey_challenges (challenge, purpose, user_id, browser_hash, created_at, expires_at)
values (:challenge, :purpose, :user_id, :browser_hash, :now, :expires_at);

-- name: use_challenge^
-- One statement, so that it is used once.
delete from passkey_challenges where challenge = :challenge and expires_at > :now returning purpose, user_id, browser_hash;

-- name: forget_challenges!
delete from passkey_challenges where expires_at < :now;

-- name: list_passkeys
select id, name, backed_up, created_at, last_used_at from passkeys
where user_id = :user_id order by created_at, id limit 100;

-- name: credential_ids
select credential_id from passkeys where user_id = :user_id limit 100;

-- name: add_passkey^
-- No row: it is known already.
insert into passkeys (id, user_id, credential_id, public_key, sign_count, name, transports, backed_up, created_at)
values (:id, :user_id, :credential_id, :public_key, :sign_count, :name, :transports, :backed_up, :now)
on conflict do nothing returning id;

-- name: find_passkey^
select id, user_id, public_key, sign_count from passkeys where credential_id = :credential_id;

-- name: passkey_used^
-- The count is compared once more here: of two requests with one answer only one gets a row.
update passkeys set sign_count = :sign_count, backed_up = :backed_up, last_used_at = :now
where id = :id and user_id = :user_id and (sign_count < :sign_count or (sign_count = 0 and :sign_count = 0))
returning id;

-- name: rename_passkey^
update passkeys set name = :name where id = :id and user_id = :user_id returning id;

-- name: drop_passkey^
delete from passkeys where id = :id and user_id = :user_id returning name;
