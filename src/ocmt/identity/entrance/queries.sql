-- The time is always the caller's :now. Tokens appear only as hashes.

-- name: is_listed$
select exists (select from sign_up_rules where (kind, value) in (('address', :email), ('domain', :domain)));

-- name: find_invitation^
select id, role from invitations
where lower(email) = :email and accepted_at is null and revoked_at is null and expires_at > :now
order by created_at desc limit 1 for update;

-- name: accept_invitations!
update invitations set accepted_at = :now where lower(email) = :email and accepted_at is null and revoked_at is null;

-- name: second_factors^
select exists (select from totp_secrets where user_id = :user_id and confirmed_at is not null) as totp,
       (select count(*) from passkeys where user_id = :user_id)::int as passkeys,
       (select count(*) from backup_codes where user_id = :user_id and used_at is null)::int as backup_codes;

-- name: forget_backup_codes!
delete from backup_codes where user_id = :user_id;

-- name: add_challenge!
insert into sign_in_challenges (token_hash, user_id, methods, created_at, expires_at)
values (:token_hash, :user_id, :methods, :now, :expires_at);

-- name: find_challenge^
-- Counts the attempt before it is judged.
update sign_in_challenges set attempts = attempts + 1
where token_hash = :token_hash and expires_at > :now and attempts < :most
returning user_id, methods;

-- name: end_challenge^
delete from sign_in_challenges where token_hash = :token_hash and expires_at > :now
returning user_id, methods;

-- name: forget_challenges!
delete from sign_in_challenges where expires_at < :now;

-- name: add_session!
insert into login_sessions (id, user_id, token_hash, user_agent, address, methods, created_at, last_seen_at,
                            authenticated_at, expires_at, impersonator_id, impersonator_session_id,
                            impersonation_reason)
values (:session_id, :user_id, :token_hash, :user_agent, :address, :methods, :now, :now,
        :now, :expires_at, :impersonator_id, :impersonator_session_id, :reason);

-- name: crowd_out!
-- All but the most recently used :most.
update login_sessions set revoked_at = :now
where user_id = :user_id and id in (
  select id from login_sessions
  where user_id = :user_id and revoked_at is null and expires_at > :now and impersonator_id is null
  order by last_seen_at desc, id desc offset :most);

-- name: find_session^
-- A session through other eyes lasts only while its administrator may begin one: active, an administrator, and still
-- signed in by the session that began it.
select session.id, session.created_at, session.last_seen_at, session.authenticated_at, session.methods,
       session.impersonator_id, session.vault_locked, owner.id as user_id, owner.email, owner.role,
       owner.mfa_required, owner.name, owner.created_at as user_since
from login_sessions session join users owner on owner.id = session.user_id
where session.token_hash = :token_hash and session.revoked_at is null and session.expires_at > :now
  and owner.status = 'active'
  and (session.impersonator_id is null
       or exists (select from login_sessions own join users admin on admin.id = own.user_id
                  where own.id = session.impersonator_session_id and own.user_id = session.impersonator_id
                    and own.impersonator_id is null and own.revoked_at is null and own.expires_at > :now
                    and admin.status = 'active' and admin.role = 'admin'));

-- name: touch_session!
update login_sessions set last_seen_at = :now, expires_at = :expires_at
where id = :session_id and user_id = :user_id and revoked_at is null and impersonator_id is null;

-- name: prove_again!
update login_sessions
set authenticated_at = :now, vault_locked = false,
    methods = case when :method = any(methods) then methods else array_append(methods, :method) end
where id = :session_id and user_id = :user_id and revoked_at is null;

-- name: lock_vault!
update login_sessions set vault_locked = true where id = :session_id and user_id = :user_id;

-- name: list_sessions
select id, user_agent, address, methods, created_at, last_seen_at, expires_at, impersonator_id is not null as impersonated
from login_sessions
where user_id = :user_id and revoked_at is null and expires_at > :now
order by last_seen_at desc, id
limit 100;

-- name: end_session^
update login_sessions set revoked_at = :now
where id = :session_id and user_id = :user_id and revoked_at is null and expires_at > :now
returning id;

-- name: end_sessions!
-- A user's own, and those in which they look through other users' eyes.
update login_sessions set revoked_at = :now
where (user_id = :user_id or impersonator_id = :user_id) and revoked_at is null;

-- name: end_impersonations!
update login_sessions set revoked_at = :now
where impersonator_id = :user_id and revoked_at is null;

-- name: forget_sessions!
-- At every sign-in of a user: what ended long ago goes.
delete from login_sessions
where user_id = :user_id and (expires_at < :before or revoked_at < :before);
