-- name: take_rate$
-- Null: taken. Else how long to wait, and nothing was written.
with before as (
  select greatest(coalesce((select arrival from rate_limits where key = :key), :now::timestamptz), :now) as arrival
), taken as (
  insert into rate_limits (key, arrival, expires_at)
  select :key, b.arrival + :interval::interval, b.arrival + :interval from before b
  where b.arrival - :now::timestamptz <= :tolerance::interval
  on conflict (key) do update
  set arrival = greatest(rate_limits.arrival, :now) + :interval, expires_at = greatest(rate_limits.arrival, :now) + :interval
  where greatest(rate_limits.arrival, :now) - :now::timestamptz <= :tolerance::interval
  returning 1
)
select case when exists (select from taken) then null else greatest(b.arrival - :now - :tolerance, interval '1 second') end
from before b;

-- name: forgive_rate!
delete from rate_limits where key = :key;

-- name: sweep_rates!
delete from rate_limits where expires_at < :now;

-- name: lock_installation^
-- Of processes that start at once, one marks its stores and the others find them marked.
select id, marked from installation for update;

-- name: find_installation^
select id, marked from installation;

-- name: find_needs_revision$
-- The newest revision that a program must know; null before the schema has an opinion.
select needs_revision from installation;

-- name: note_marked!
update installation set marked = true;

-- name: lock_storage^
-- With the limits of the user's plan; null: as the installation's settings say.
select s.store, s.items, s.bytes, s.refused_at, l.*
from storage_used s left join lateral (
  select p.conversations, p.conversation_bytes, p.delivery_bytes, p.attachment_bytes, p.kept_snapshot_bytes,
         p.snapshot_bytes
  from agents a join plans p on p.name = a.plan where a.user_id = s.user_id) l on true
where s.user_id = :user_id and s.store = :store for no key update of s;

-- name: find_storage
select s.store, s.items, s.bytes, s.refused_at, l.*
from storage_used s left join lateral (
  select p.conversations, p.conversation_bytes, p.delivery_bytes, p.attachment_bytes, p.kept_snapshot_bytes,
         p.snapshot_bytes
  from agents a join plans p on p.name = a.plan where a.user_id = s.user_id) l on true
where s.user_id = :user_id;

-- name: set_storage_bytes!
update storage_used set bytes = :bytes where user_id = :user_id and store = :store;
