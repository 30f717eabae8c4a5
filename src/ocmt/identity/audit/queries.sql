-- name: lock_head^
-- One writer at a time, until its commit: that is what makes a chain of the rows. Taken last in a transaction.
select last_id, hash from audit_head for update;

-- name: add_row!
insert into audit_log (id, at, action, actor_id, subject_id, salt, details, details_hash, previous, hash)
values (:id, :at, :action, :actor_id, :subject_id, :salt, :details, :details_hash, :previous, :hash);

-- name: move_head!
update audit_head set last_id = :last_id, hash = :hash;

-- name: head^
select last_id, hash, first_id, anchor from audit_head;

-- name: read_rows
-- Oldest first.
select id, at, action, actor_id, subject_id, salt, details, details_hash, previous, hash from audit_log
where id > :after order by id limit :limit;

-- name: drop_before!
delete from audit_log where id < :first_id;

-- name: find_hash$
select hash from audit_log where id = :id;

-- name: has_hash$
select exists (select from audit_log where hash = :hash) or exists (select from audit_head where hash = :hash or anchor = :hash);

-- name: last_before$
-- The newest row that is older than that.
select max(id) from audit_log where at < :before;

-- name: move_start!
update audit_head set first_id = :first_id, anchor = :anchor;

-- name: erase!
-- What names a person goes, the chain stays.
update audit_log set salt = null, details = null
where (subject_id = :user_id or actor_id = :user_id) and details is not null;

-- name: page_rows
-- Newest first, of one account (by or about them) or of all.
select id, at, action, actor_id, subject_id, salt, details, details_hash, previous, hash from audit_log
where (:before::bigint is null or id < :before)
  and (:user_id::uuid is null or subject_id = :user_id or actor_id = :user_id)
  and (:action::text is null or starts_with(action, :action))
  and (:since::timestamptz is null or at >= :since) and (:until::timestamptz is null or at < :until)
order by id desc limit :limit;
