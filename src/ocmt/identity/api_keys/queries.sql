-- name: lock_keys$
-- One user's keys are counted one request at a time.
select pg_advisory_xact_lock(hashtextextended('ocmt.api_keys ' || :user_id::uuid::text, 0));

-- name: count_keys$
select count(*) from api_keys
where user_id = :user_id and revoked_at is null and (expires_at is null or expires_at > :now);

-- name: add_key!
insert into api_keys (id, user_id, name, prefix, key_hash, scopes, created_at, expires_at)
values (:id, :user_id, :name, :prefix, :key_hash, :scopes, :now, :expires_at);

-- name: list_keys
select id, name, prefix, scopes, created_at, expires_at, last_used_at, last_address from api_keys
where user_id = :user_id and revoked_at is null
order by created_at desc, id desc
limit 100;

-- name: revoke_key^
update api_keys set revoked_at = :now
where id = :id and user_id = :user_id and revoked_at is null
returning name, prefix;

-- name: find_key^
select k.id, k.scopes, k.last_used_at, u.id as user_id, u.email, u.role, u.name, u.created_at as user_since
from api_keys k join users u on u.id = k.user_id
where k.key_hash = :key_hash and k.revoked_at is null and (k.expires_at is null or k.expires_at > :now)
  and u.status = 'active';

-- name: touch_key!
update api_keys set last_used_at = :now, last_address = :address where id = :id and user_id = :user_id;
