-- name: add_data_key!
insert into vault_keys (user_id, wrapped) values (:user_id, :wrapped) on conflict (user_id) do nothing;

-- name: lock_data_key$
-- Writers of one vault take turns.
select wrapped from vault_keys where user_id = :user_id for update;

-- name: find_version$
select version from vault_items where user_id = :user_id and name = :name;

-- name: put_item!
insert into vault_items (user_id, name, version, ciphertext, hint, updated_at)
values (:user_id, :name, :version, :ciphertext, :hint, now())
on conflict (user_id, name) do update
set version = excluded.version, ciphertext = excluded.ciphertext, hint = excluded.hint, updated_at = now();

-- name: find_item^
select i.version, i.ciphertext, k.wrapped
from vault_items i join vault_keys k using (user_id)
where i.user_id = :user_id and i.name = :name;

-- name: list_items
select name, hint, updated_at from vault_items where user_id = :user_id order by name;

-- name: drop_item!
delete from vault_items where user_id = :user_id and name = :name;

-- name: drop_unused_data_key!
-- With the last item goes the key: one that no longer opens (another master key) is replaced by the next put.
delete from vault_keys k
where user_id = :user_id and not exists (select 1 from vault_items i where i.user_id = k.user_id);
