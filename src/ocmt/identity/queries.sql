-- Identity's statements. The time is always the caller's :now. Tokens appear only as hashes.

-- name: lock_users$
-- Held while somebody is admitted, added or suspended: "is there nobody yet?" and "is there another
-- administrator?" must still be true at the commit.
select pg_advisory_xact_lock(hashtextextended('ocmt.identity.users', 0));

-- name: lock_address$
-- Counts the links of one address one request at a time.
select pg_advisory_xact_lock(hashtextextended('ocmt.identity.link ' || :email, 0));

-- name: any_user$
select exists (select from users);

-- name: find_user^
select id, email, name, is_admin, status, created_at from users where lower(email) = :email;

-- name: get_user^
select id, email, name, is_admin, status, created_at from users where id = :user_id;

-- name: first_admin^
select id, email, name, is_admin, status, created_at from users
where is_admin and status = 'active'
order by created_at, id
limit 1;

-- name: count_admins$
select count(*) from users where is_admin and status = 'active';

-- name: list_users
-- Oldest first; :after is the id of the last user of the page before.
select id, email, name, is_admin, status, created_at from users
where cast(:after as uuid) is null
   or (created_at, id) > (select created_at, id from users where id = cast(:after as uuid))
order by created_at, id
limit :limit;

-- name: add_user^
-- No row: another user has this address.
insert into users (id, email, name, is_admin, created_at)
values (:user_id, :email, :name, :is_admin, :now)
on conflict do nothing
returning id, email, name, is_admin, status, created_at;

-- name: update_user^
-- No row: another user has this address (call it under lock_users).
update users set name = :name, email = :email
where id = :user_id
  and not exists (select from users other where lower(other.email) = :email and other.id <> :user_id)
returning id, email, name, is_admin, status, created_at;

-- name: set_status!
update users set status = :status where id = :user_id;

-- name: link_demand^
select count(*) filter (where lower(link.email) = :email) as for_address,
       count(*) filter (where (owner.id is not null) = :known) as overall
from sign_in_links link left join users owner on lower(owner.email) = lower(link.email)
where link.email is not null and link.created_at > :since;

-- name: add_link!
insert into sign_in_links (token_hash, email, created_at, expires_at)
values (:token_hash, :email, :now, :expires_at);

-- name: void_start_links!
delete from sign_in_links where email is null and used_at is null;

-- name: forget_links!
delete from sign_in_links where expires_at < :before;

-- name: use_link^
-- One statement, so that of two requests with one link only one gets a row.
update sign_in_links set used_at = :now
where token_hash = :token_hash and used_at is null and expires_at > :now
returning email;

-- name: add_session!
insert into login_sessions (id, user_id, token_hash, user_agent, created_at, last_seen_at, expires_at)
values (:session_id, :user_id, :token_hash, :user_agent, :now, :now, :expires_at);

-- name: find_session^
select session.id, session.created_at, session.last_seen_at, owner.id as user_id, owner.email, owner.is_admin
from login_sessions session join users owner on owner.id = session.user_id
where session.token_hash = :token_hash and session.revoked_at is null and session.expires_at > :now
  and owner.status = 'active';

-- name: touch_session!
update login_sessions set last_seen_at = :now, expires_at = :expires_at
where id = :session_id and user_id = :user_id and revoked_at is null;

-- name: list_sessions
select id, user_agent, created_at, last_seen_at, expires_at from login_sessions
where user_id = :user_id and revoked_at is null and expires_at > :now
order by last_seen_at desc, id
limit 100;

-- name: end_session^
update login_sessions set revoked_at = :now
where id = :session_id and user_id = :user_id and revoked_at is null and expires_at > :now
returning id;

-- name: end_sessions!
update login_sessions set revoked_at = :now where user_id = :user_id and revoked_at is null;

-- name: forget_sessions!
-- At every sign-in of a user: what ended long ago goes.
delete from login_sessions
where user_id = :user_id and (expires_at < :before or revoked_at < :before);
