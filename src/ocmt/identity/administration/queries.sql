-- name: list_rules
select kind, value, created_at from sign_up_rules order by kind, value limit 1000;

-- name: put_rule^
insert into sign_up_rules (kind, value, created_at, created_by) values (:kind, :value, :now, :created_by)
on conflict do nothing returning kind;

-- name: drop_rule^
delete from sign_up_rules where kind = :kind and value = :value returning kind;

-- name: list_invitations
select id, email, role, created_at, expires_at, accepted_at, revoked_at from invitations
where cast(:after as uuid) is null or id < cast(:after as uuid)
order by id desc limit :limit;

-- name: add_invitation!
insert into invitations (id, email, role, token_hash, invited_by, created_at, expires_at)
values (:id, :email, :role, :token_hash, :invited_by, :now, :expires_at);

-- name: revoke_invitation^
update invitations set revoked_at = :now
where id = :id and accepted_at is null and revoked_at is null
returning email;

-- name: has_user$
select exists (select from users where lower(email) = :email);
