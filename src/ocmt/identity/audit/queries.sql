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

-- name: page_rows
-- Newest first, of one account (by or about them) or of all.
select id, at, action, actor_id, subject_id, salt, details, details_hash, previous, hash from audit_log
where (:before::bigint is null or id < :before)
  and (:user_id::uuid is null or subject_id = :user_id or actor_id = :user_id)
order by id desc limit :limit;
