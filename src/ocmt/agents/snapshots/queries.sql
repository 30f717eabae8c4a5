-- name: find_snapshots
-- A page of a user's snapshots, newest first; `before` null: from the newest.
select generation, created_at, image, files, bytes, manifest, content
from snapshots
where user_id = :user_id and (:before::bigint is null or generation < :before::bigint)
order by generation desc
limit :limit;

-- name: find_snapshot^
select generation, created_at, image, files, bytes, manifest, content
from snapshots where user_id = :user_id and generation = :generation;

-- name: find_newest_snapshot^
-- For the lease's holder only; without a snapshot a row of nulls, without the lease none.
select a.snapshot_generation, s.generation, s.created_at, s.image, s.files, s.bytes, s.manifest, s.content
from agents a left join snapshots s on s.user_id = a.user_id and s.generation = a.snapshot_generation
where a.user_id = :user_id and a.lease_token = :lease_token;

-- name: count_running^
-- Agents that may have changed files since their last save, how many of them were never saved, and the oldest save.
select count(*) as agents, count(*) filter (where snapshot_generation = 0) as never, min(snapshot_at) as oldest
from agents where state not in ('stopped', 'failed');

-- name: find_newest_of_all^
-- Of all users, the one that was written last.
select user_id, snapshot_generation as generation from agents
where snapshot_generation > 0 order by snapshot_at desc nulls last limit 1;

-- name: find_all_snapshots
-- For a backup.
select user_id, generation from snapshots;

-- name: find_snapshot_times
select generation, created_at from snapshots where user_id = :user_id;

-- name: add_snapshot$
-- The pointer moves and the generation comes to be, both or neither, and only forward.
with moved as (
  update agents set snapshot_generation = :generation, snapshot_at = :created_at,
    saved_at = :created_at, save_problem = null
  where user_id = :user_id and lease_token = :lease_token and snapshot_generation < :generation
  returning user_id
)
insert into snapshots (user_id, generation, created_at, image, files, bytes, manifest, content)
select user_id, :generation, :created_at, :image, :files, :bytes, :manifest, :content from moved
returning generation;

-- name: drop_snapshots!
-- Never the newest.
delete from snapshots s using agents a
where s.user_id = :user_id and s.generation = any(:generations::bigint[])
  and a.user_id = s.user_id and a.lease_token = :lease_token and s.generation <> a.snapshot_generation;

-- name: note_saved$
update agents set saved_at = :moment, save_problem = null
where user_id = :user_id and lease_token = :lease_token
returning user_id;

-- name: note_save_problem!
update agents set save_problem = :problem where user_id = :user_id and lease_token = :lease_token;

-- name: find_snapshot_state^
select a.snapshot_generation, a.restore_asked, a.import_asked, s.manifest
from agents a left join snapshots s on s.user_id = a.user_id and s.generation = a.snapshot_generation
where a.user_id = :user_id;

-- name: ask_restore$
update agents a set restore_asked = :generation, import_asked = null
where a.user_id = :user_id
  and exists (select from snapshots s where s.user_id = a.user_id and s.generation = :generation)
returning user_id;

-- name: restore_done!
-- A wish that came meanwhile stays.
update agents set restore_asked = null
where user_id = :user_id and lease_token = :lease_token and restore_asked = :generation;

-- name: ask_import!
update agents set import_asked = :sha256, restore_asked = null where user_id = :user_id;

-- name: import_done!
-- A wish that came meanwhile stays.
update agents set import_asked = null
where user_id = :user_id and lease_token = :lease_token and import_asked = :sha256;
