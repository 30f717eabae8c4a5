-- The time is always the caller's :now. Tokens appear only as hashes.

-- name: add_ticket^
insert into agent_visits (token_hash, user_id, session_id, binding, created_at, expires_at)
select :token_hash, user_id, id, :binding, :now, :expires_at from login_sessions
where id = :session_id and user_id = :user_id and revoked_at is null and expires_at > :now
returning session_id;

-- name: crowd_out!
-- All but the newest :most of a session, and what has expired.
delete from agent_visits
where user_id = :user_id and (expires_at <= :now or token_hash in (
  select token_hash from agent_visits
  where user_id = :user_id and session_id = :session_id
  order by token_hash = :newest desc, created_at desc, token_hash offset :most));

-- name: redeem^
-- A ticket becomes a visit, once, and under another token.
update agent_visits set token_hash = :visit_hash, binding = null, expires_at = :expires_at
where token_hash = :token_hash and binding = :binding and expires_at > :now
returning user_id, session_id;

-- name: find_visit^
-- Nobody comes here through other eyes: the pages act, and those eyes only look.
select session.id, session.created_at, session.last_seen_at, session.authenticated_at, session.methods,
       session.impersonator_id, session.vault_locked, owner.id as user_id, owner.email, owner.role, owner.mfa_required, owner.name,
       owner.created_at as user_since
from agent_visits visit
join login_sessions session on session.id = visit.session_id
join users owner on owner.id = session.user_id
where visit.token_hash = :token_hash and visit.binding is null and visit.expires_at > :now
  and session.revoked_at is null and session.expires_at > :now and owner.status = 'active'
  and session.impersonator_id is null;
