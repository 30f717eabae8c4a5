-- The time is always the caller's :now. The state of an attempt is kept as its hash.

-- name: add_attempt!
insert into oidc_attempts (state_hash, provider, browser_hash, nonce, verifier, user_id, created_at, expires_at)
values (:state_hash, :provider, :browser_hash, :nonce, :verifier, :user_id, :now, :expires_at);

-- name: use_attempt^
-- One statement, so that of two answers to one attempt only one gets a row. Also an answer that comes to the
-- wrong browser ends it: that somebody else has the state is reason enough.
delete from oidc_attempts where state_hash = :state_hash
returning provider, browser_hash, nonce, verifier, user_id, expires_at;

-- name: forget_attempts!
delete from oidc_attempts where expires_at < :now;

-- name: find_account^
select owner.id, owner.email, owner.name, owner.role, owner.status, owner.mfa_required, owner.created_at
from oidc_accounts account join users owner on owner.id = account.user_id
where account.provider = :provider and account.subject = :subject and account.issuer in (:issuer, '')
order by account.issuer desc limit 1;

-- name: is_untouched$
-- Whether nobody has used a user's account and nothing is in it: neither a session nor another way to sign in,
-- neither keys nor an agent, nothing imported.
select not exists (select from login_sessions where user_id = :user_id and impersonator_id is null)
   and not exists (select from oidc_accounts where user_id = :user_id)
   and not exists (select from passkeys where user_id = :user_id)
   and not exists (select from vault_keys where user_id = :user_id)
   and not exists (select from imported_vaults where user_id = :user_id)
   and not exists (select from agents where user_id = :user_id);

-- name: lock_account$
-- Held while an account at a provider is connected, so that it cannot be connected twice.
select pg_advisory_xact_lock(hashtextextended('ocmt.identity.oidc ' || :provider || ' ' || :subject, 0));

-- name: count_accounts$
select count(*) from oidc_accounts where user_id = :user_id;

-- name: add_account!
insert into oidc_accounts (id, provider, issuer, subject, user_id, email, created_at, last_used_at)
values (:account_id, :provider, :issuer, :subject, :user_id, :email, :now, :last_used_at);

-- name: use_account!
-- The address may be another than the last time; the user stays the same.
update oidc_accounts set last_used_at = :now, email = :email, issuer = :issuer
where provider = :provider and issuer in (:issuer, '') and subject = :subject and user_id = :user_id;

-- name: list_accounts
select id, provider, email, created_at, last_used_at from oidc_accounts
where user_id = :user_id order by created_at, id limit 100;

-- name: end_account^
delete from oidc_accounts where id = :account_id and user_id = :user_id
returning provider, email;
