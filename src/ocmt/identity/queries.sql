-- Identity's statements. The time is always the caller's :now. Tokens appear only as hashes.

-- name: lock_users$
-- Held while somebody is admitted, added or suspended: "is there nobody yet?" and "is there another
-- administrator?" must still be true at the commit.
select pg_advisory_xact_lock(hashtextextended('ocmt.identity.users', 0));

-- name: any_user$
select exists (select from users);

-- name: any_admin$
-- Of any status: a suspended administrator still means that this installation has had its first one.
select exists (select from users where role = 'admin');

-- name: find_user^
select id, email, name, role, status, mfa_required, created_at from users where lower(email) = :email;

-- name: get_user^
select id, email, name, role, status, mfa_required, created_at from users where id = :user_id;

-- name: first_admin^
select id, email, name, role, status, mfa_required, created_at from users
where role = 'admin' and status = 'active'
order by created_at, id
limit 1;

-- name: count_admins$
select count(*) from users where role = 'admin' and status = 'active';

-- name: list_users
-- Oldest first; :after is the id of the last user of the page before.
-- Of those only whose address or name has :search in it, in any case; null: all.
select id, email, name, role, status, mfa_required, created_at from users
where (cast(:after as uuid) is null
   or (created_at, id) > (select created_at, id from users where id = cast(:after as uuid)))
  and (cast(:search as text) is null or strpos(lower(email || ' ' || coalesce(name, '')), lower(:search)) > 0)
order by created_at, id
limit :limit;

-- name: addresses
select id, email from users where id = any(:user_ids::uuid[]);

-- name: add_user^
-- No row: another user has this address. is_admin is for the program before this one.
insert into users (id, email, name, role, is_admin, status, created_at)
values (:user_id, :email, :name, :role, :role::text = 'admin', :status, :now)
on conflict do nothing
returning id, email, name, role, status, mfa_required, created_at;

-- name: update_user^
-- No row: another user has this address (call it under lock_users).
update users set name = :name, email = :email
where id = :user_id
  and not exists (select from users other where lower(other.email) = :email and other.id <> :user_id)
returning id, email, name, role, status, mfa_required, created_at;

-- name: administer!
-- `tokens_end`: access tokens from before then are void; null: they go on.
update users
set role = :role, is_admin = (:role::text = 'admin'), status = :status, mfa_required = :mfa_required,
    tokens_valid_from = coalesce(:tokens_end, tokens_valid_from)
where id = :user_id;

-- name: add_link!
insert into sign_in_links (token_hash, email, browser_hash, created_at, expires_at)
values (:token_hash, :email, :browser_hash, :now, :expires_at);

-- name: void_start_links!
delete from sign_in_links where email is null and used_at is null;

-- name: forget_links!
delete from sign_in_links where expires_at < :before;

-- name: find_link^
select email, browser_hash from sign_in_links
where token_hash = :token_hash and used_at is null and expires_at > :now;

-- name: use_link^
-- One statement, so that of two requests with one link only one gets a row.
update sign_in_links set used_at = :now
where token_hash = :token_hash and used_at is null and expires_at > :now
returning email;
