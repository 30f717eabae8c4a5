-- An impersonation ends with the session that began it, and locking the vault is no longer the end of a recent sign-in.
alter table login_sessions
  add column impersonator_session_id uuid,              -- the administrator's own session; null: not an impersonation
  add column vault_locked boolean not null default false;
