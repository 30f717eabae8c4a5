-- name: ask_deletion^
insert into account_deletions (id, user_id, asked_at, asked_by) values (:id, :user_id, :now, :asked_by)
on conflict (user_id) do nothing returning id;

-- name: open_deletions
select id, user_id, asked_at, asked_by, finished_at, report from account_deletions
where finished_at is null order by asked_at limit 20;

-- name: list_deletions
select id, user_id, asked_at, asked_by, finished_at, report from account_deletions
where cast(:after as uuid) is null or id < cast(:after as uuid) order by id desc limit :limit;

-- name: note_report!
update account_deletions set report = :report where id = :id;

-- name: finish!
update account_deletions set report = :report, finished_at = :now where id = :id;

-- name: deleted_of
-- Those of them that were deleted for good.
select user_id from account_deletions where finished_at is not null and user_id = any(:user_ids::uuid[]);

-- name: columns
-- Of all our tables, as they are now: a table that is added later is looked at without anybody thinking of it.
select table_name, column_name from information_schema.columns
where table_schema = current_schema() and column_name = any(:names::text[]) order by table_name, column_name;

-- name: email_of$
select email from users where id = :user_id;

-- name: forget_address!
-- What knows a person by their address alone.
with links as (delete from sign_in_links where lower(email) = lower(:email)),
     invited as (delete from invitations where lower(email) = lower(:email)),
     grouped as (delete from group_invitations where lower(email) = lower(:email))
delete from sign_up_rules where kind = 'address' and value = lower(:email);

-- name: drop_user!
delete from users where id = :user_id;
