-- The master key

-- name: current_master$
-- Held until the commit: a rotation waits for who wraps by the present version.
select current from vault_master for share;

-- name: next_master$
select current + 1 from vault_master for update;

-- name: move_master!
update vault_master set current = :version;

-- name: find_wrapped_key^
-- Any wrapped data key, to try the master key on; of the newest version, for an older one may be on its way out.
select user_id as owner_id, wrapped, master_version from vault_keys order by master_version desc limit 1;

-- name: wrapped_before
select user_id as owner_id, wrapped, master_version from vault_keys
where master_version < :version order by user_id limit :limit for update;

-- name: rewrap!
update vault_keys set wrapped = :wrapped, master_version = :version where user_id = :owner_id;

-- name: group_wrapped_before
select group_id as owner_id, wrapped, master_version from group_vault_keys
where master_version < :version order by group_id limit :limit for update;

-- name: group_rewrap!
update group_vault_keys set wrapped = :wrapped, master_version = :version where group_id = :owner_id;

-- name: oldest_master$
select least(:current::int, (select min(master_version) from vault_keys), (select min(master_version) from group_vault_keys));

-- Data keys

-- name: add_data_key!
insert into vault_keys (user_id, wrapped, master_version) values (:user_id, :wrapped, :master_version)
on conflict (user_id) do nothing;

-- name: lock_data_key^
-- Writers of one vault take turns.
select wrapped, master_version, version from vault_keys where user_id = :user_id for update;

-- name: replace_data_key!
update vault_keys set wrapped = :wrapped, master_version = :master_version, version = version + 1
where user_id = :user_id;

-- name: drop_unused_data_key!
-- With the last item goes the key: one that no longer opens (another master key) is replaced by the next put.
delete from vault_keys k
where user_id = :user_id and not exists (select 1 from vault_items i where i.user_id = k.user_id);

-- name: users_with_keys
select user_id from vault_keys
where cast(:after as uuid) is null or user_id > cast(:after as uuid) order by user_id limit :limit;

-- Items

-- name: find_version^
select version, ciphertext, key_version, kind from vault_items where user_id = :user_id and name = :name;

-- name: count_items$
select count(*) from vault_items where user_id = :user_id;

-- name: put_item!
insert into vault_items (user_id, name, kind, version, ciphertext, key_version, hint, created_at, updated_at)
values (:user_id, :name, :kind, :version, :ciphertext, :key_version, :hint, :now, :now)
on conflict (user_id, name) do update
set kind = excluded.kind, version = excluded.version, ciphertext = excluded.ciphertext,
    key_version = excluded.key_version, hint = excluded.hint, updated_at = excluded.updated_at;

-- name: keep_version!
insert into vault_item_versions (user_id, name, version, ciphertext, key_version, replaced_at)
values (:user_id, :name, :version, :ciphertext, :key_version, :now);

-- name: forget_versions!
delete from vault_item_versions where user_id = :user_id and name = :name and version <= :before;

-- name: list_versions
select version, replaced_at from vault_item_versions
where user_id = :user_id and name = :name order by version desc limit 100;

-- name: find_kept^
select ciphertext from vault_item_versions where user_id = :user_id and name = :name and version = :version;

-- name: find_item^
select i.version, i.ciphertext, i.kind, k.wrapped, k.master_version
from vault_items i join vault_keys k using (user_id)
where i.user_id = :user_id and i.name = :name;

-- name: list_items
select name, kind, version, hint, created_at, updated_at, last_used_at, used_by, uses from vault_items
where user_id = :user_id order by name limit 200;

-- name: drop_item^
delete from vault_items where user_id = :user_id and name = :name returning version;

-- name: item_used!
update vault_items set uses = uses + 1, last_used_at = :now, used_by = :used_by
where user_id = :user_id and name = :name;

-- name: all_items
select name, version, ciphertext, false as kept from vault_items where user_id = :user_id
union all
select name, version, ciphertext, true from vault_item_versions where user_id = :user_id;

-- name: reseal_item!
update vault_items set ciphertext = :ciphertext, key_version = :key_version
where user_id = :user_id and name = :name and version = :version;

-- name: reseal_kept!
update vault_item_versions set ciphertext = :ciphertext, key_version = :key_version
where user_id = :user_id and name = :name and version = :version;

-- Keys that groups share

-- name: find_group_key^
select wrapped, master_version from group_vault_keys where group_id = :group_id for update;

-- name: add_group_key!
insert into group_vault_keys (group_id, wrapped, master_version) values (:group_id, :wrapped, :master_version);

-- name: find_group_version$
select version from group_vault_items where group_id = :group_id and name = :name;

-- name: put_group_item!
insert into group_vault_items (group_id, name, version, ciphertext, hint, updated_at, updated_by)
values (:group_id, :name, :version, :ciphertext, :hint, :now, :updated_by)
on conflict (group_id, name) do update
set version = excluded.version, ciphertext = excluded.ciphertext, hint = excluded.hint,
    updated_at = excluded.updated_at, updated_by = excluded.updated_by;

-- name: drop_group_item^
delete from group_vault_items where group_id = :group_id and name = :name returning version;

-- name: find_shared^
-- Of the group that the user has been in for the longest time.
select i.group_id, i.version, i.ciphertext, k.wrapped, k.master_version
from group_members m
join group_vault_items i on i.group_id = m.group_id and i.name = :name
join group_vault_keys k on k.group_id = m.group_id
where m.user_id = :user_id
order by m.joined_at, m.group_id limit 1;

-- name: group_item_used!
update group_vault_items set uses = uses + 1, last_used_at = :now where group_id = :group_id and name = :name;
