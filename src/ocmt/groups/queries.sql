-- name: list_groups
select g.id, g.name, g.description, g.created_at, me.role,
       (select count(*) from group_members m where m.group_id = g.id)::int as members,
       array(select k.name from group_vault_items k where k.group_id = g.id order by k.name) as key_names
from group_members me join groups g on g.id = me.group_id
where me.user_id = :user_id and (:group_id::uuid is null or g.id = :group_id)
order by lower(g.name), g.id limit 100;

-- name: lock_group^
-- Changes of one group's members take turns; no row: the asker is not in it.
select g.id, g.name, g.description, me.role
from groups g join group_members me on me.group_id = g.id and me.user_id = :user_id
where g.id = :group_id for update of g;

-- name: count_groups$
select count(*) from group_members where user_id = :user_id;

-- name: add_group!
insert into groups (id, name, description, created_at, created_by)
values (:group_id, :name, :description, :now, :user_id);

-- name: update_group!
update groups set name = :name, description = :description where id = :group_id;

-- name: drop_group!
delete from groups where id = :group_id;

-- name: list_members
select m.user_id, u.email, u.name, m.role, m.joined_at
from group_members m join users u on u.id = m.user_id
where m.group_id = :group_id and (:after::uuid is null or m.user_id > :after)
order by m.user_id limit :limit;

-- name: count_members$
select count(*) from group_members where group_id = :group_id;

-- name: count_admins$
select count(*) from group_members where group_id = :group_id and role = 'admin';

-- name: find_member^
select role from group_members where group_id = :group_id and user_id = :member_id;

-- name: add_member^
insert into group_members (group_id, user_id, role, joined_at) values (:group_id, :user_id, :role, :now)
on conflict do nothing returning user_id;

-- name: set_member_role!
update group_members set role = :role where group_id = :group_id and user_id = :member_id;

-- name: drop_member!
delete from group_members where group_id = :group_id and user_id = :member_id;

-- name: list_invitations
select i.id, i.group_id, g.name as group_name, i.email, i.role, i.created_at, i.expires_at
from group_invitations i join groups g on g.id = i.group_id
where i.group_id = :group_id and i.decided_at is null and i.expires_at > :now
order by i.created_at desc limit 100;

-- name: own_invitations
select i.id, i.group_id, g.name as group_name, i.email, i.role, i.created_at, i.expires_at
from group_invitations i join groups g on g.id = i.group_id
where lower(i.email) = lower(:email) and i.decided_at is null and i.expires_at > :now
order by i.created_at desc limit 100;

-- name: is_member$
select exists (select from group_members m join users u on u.id = m.user_id
               where m.group_id = :group_id and lower(u.email) = :email);

-- name: find_address$
select email from users where id = :user_id;

-- name: drop_open_invitation!
-- A new one for the same address takes the place of the one before.
delete from group_invitations where group_id = :group_id and lower(email) = :email and decided_at is null;

-- name: count_invitations$
select count(*) from group_invitations where group_id = :group_id and decided_at is null and expires_at > :now;

-- name: add_invitation!
insert into group_invitations (id, group_id, email, role, invited_by, created_at, expires_at)
values (:id, :group_id, :email, :role, :invited_by, :now, :expires_at);

-- name: withdraw_invitation^
update group_invitations set decided_at = :now, decision = 'withdrawn'
where id = :id and group_id = :group_id and decided_at is null returning email;

-- name: decide_invitation^
-- By whom it was sent to, and nobody else: address and member are of one and the same row.
update group_invitations set decided_at = :now, decision = :decision
where id = :id and lower(email) = (select lower(u.email) from users u where u.id = :user_id) and decided_at is null and expires_at > :now
returning group_id, role;

-- name: list_resources
select id, group_id, name, description, resource_type, endpoint, status, created_at from group_resources
where group_id = :group_id order by name, id limit 500;

-- name: list_shares
select s.id, s.resource_id, r.name as resource_name, s.permissions, s.status, s.granted_at
from resource_shares s join group_resources r on r.id = s.resource_id
where s.user_id = :user_id order by s.granted_at desc limit 500;

-- name: promote_heirs!
-- Where somebody is the only admin, the oldest of the other members becomes one.
update group_members heir set role = 'admin'
where (heir.group_id, heir.user_id) in (
  select distinct on (m.group_id) m.group_id, m.user_id
  from group_members m
  join group_members me on me.group_id = m.group_id and me.user_id = :user_id and me.role = 'admin'
  where m.user_id <> :user_id
    and not exists (select from group_members a
                    where a.group_id = m.group_id and a.role = 'admin' and a.user_id <> :user_id)
  order by m.group_id, m.joined_at, m.user_id);

-- name: drop_lonely!
-- Groups that have nobody else.
delete from groups g
where exists (select from group_members m where m.group_id = g.id and m.user_id = :user_id)
  and not exists (select from group_members m where m.group_id = g.id and m.user_id <> :user_id);
