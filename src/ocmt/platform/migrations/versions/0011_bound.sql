-- A passkey's question is answered by the browser that was asked; an account at a provider belongs to the issuer that
-- the provider's name stood for.
alter table passkey_challenges add column browser_hash bytea;   -- of its secret; null: a signed-in user's question

alter table oidc_accounts add column issuer text not null default '';   -- empty: connected before this was kept
alter table oidc_accounts drop constraint oidc_accounts_provider_subject_key;
alter table oidc_accounts add constraint oidc_accounts_subject unique (provider, issuer, subject);
