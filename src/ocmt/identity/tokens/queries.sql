-- name: lock_ring$
-- Of two who make or rotate the keys at once, one waits.
select pg_advisory_xact_lock(hashtextextended('ocmt.token-signing-keys', 0));

-- name: recently_revoked
-- Whose tokens from before that moment are void, as long as one could still be alive.
select id, tokens_valid_from from users where tokens_valid_from > :since;
