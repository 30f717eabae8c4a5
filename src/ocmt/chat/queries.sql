-- name: create_conversation^
insert into conversations (id, user_id, title) values (:id, :user_id, :title)
returning id, user_id, title, created_at, updated_at, last_seq;

-- name: find_conversation^
select id, user_id, title, created_at, updated_at, last_seq
from conversations where user_id = :user_id and id = :id;

-- name: list_conversations
select id, user_id, title, created_at, updated_at, last_seq
from conversations
where user_id = :user_id
  and (:before::timestamptz is null or (updated_at, id) < (:before::timestamptz, :before_id::uuid))
order by updated_at desc, id desc
limit :limit;

-- name: rename_conversation^
update conversations set title = :title where user_id = :user_id and id = :id
returning id, user_id, title, created_at, updated_at, last_seq;

-- name: delete_conversation$
delete from conversations where user_id = :user_id and id = :id returning id;

-- name: lock_conversation^
-- Serialises the writers of one conversation, and proves whose it is.
select id, title from conversations where user_id = :user_id and id = :id for update;

-- name: lock_for_message^
-- The same, and with it the user's count: until the transaction ends nobody else accepts a message of theirs. How many
-- bytes are kept, and how many may be.
select c.id, c.title, s.bytes,
       coalesce((select p.conversation_bytes from agents a join plans p on p.name = a.plan where a.user_id = s.user_id),
                :most_bytes::bigint) as most
from conversations c join storage_used s on s.user_id = c.user_id and s.store = 'conversations'
where c.user_id = :user_id and c.id = :id for no key update;

-- name: name_conversation!
update conversations set title = :title where user_id = :user_id and id = :id and title is null;

-- name: find_turn_by_key^
select id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
       created_at, started_at, finished_at
from turns where user_id = :user_id and conversation_id = :conversation_id and idempotency_key = :idempotency_key;

-- name: find_turn^
select id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
       created_at, started_at, finished_at
from turns where user_id = :user_id and id = :id;

-- name: count_open_turns_in$
select count(*) from turns
where user_id = :user_id and conversation_id = :id and status in ('accepted', 'running');

-- name: create_turn^
-- Nothing where the key is known already, or where as many turns are open as may be. Hints the workers.
with made as (
insert into turns (id, conversation_id, user_id, idempotency_key, text, attachments, commands, created_at)
select :id::uuid, :conversation_id::uuid, :user_id::uuid, :idempotency_key::text, :text::text, :attachments::jsonb,
       :commands::boolean, :now::timestamptz
where :fits::boolean
  and (select count(*) from turns where user_id = :user_id::uuid and status in ('accepted', 'running')) < :most
on conflict (conversation_id, idempotency_key) do nothing
returning id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
          created_at, started_at, finished_at
)
select made.* from made, pg_notify('turns', :user_id::text);

-- name: create_ended_turn^
-- A turn that never goes to the agent: the message is a stop phrase, and `answer` is our own. Not counted as open.
-- Nothing where the key is known already.
insert into turns (id, conversation_id, user_id, idempotency_key, text, status, answer, created_at, started_at, finished_at)
values (:id, :conversation_id, :user_id, :idempotency_key, :text, 'completed', :answer, :now, :now, :now)
on conflict (conversation_id, idempotency_key) do nothing
returning id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
          created_at, started_at, finished_at;

-- name: ask_stop_all$
-- Every open turn of a conversation: the one that is being answered, and what waits behind it. How many.
with asked as (
  update turns set stop_requested = true
  where user_id = :user_id and conversation_id = :conversation_id and status in ('accepted', 'running')
  returning 1
)
select count(*) from asked, pg_notify('turns', :user_id::text);

-- name: list_turns
-- Newest first; the caller turns them round.
select id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
       created_at, started_at, finished_at
from turns
where user_id = :user_id and conversation_id = :conversation_id
  and (:before::uuid is null or (created_at, id) < (select created_at, id from turns where id = :before::uuid and user_id = :user_id))
order by created_at desc, id desc
limit :limit;

-- name: resume_point$
-- The number before the first event that a browser must replay: that of the earliest turn still open.
select coalesce(
  (select min(e.seq) - 1 from events e join turns t on t.id = e.turn_id
   where t.user_id = :user_id and t.conversation_id = :conversation_id and t.status in ('accepted', 'running')),
  (select last_seq from conversations where user_id = :user_id and id = :conversation_id));

-- name: list_tool_events
-- The tool calls of finished turns, for a history that looks like the stream did.
select e.turn_id, e.data from events e
where e.conversation_id = :conversation_id and e.type = 'turn.tool' and e.turn_id = any(:turn_ids::uuid[])
order by e.seq
limit 2000;

-- name: ask_stop^
update turns set stop_requested = true
where user_id = :user_id and id = :id and status in ('accepted', 'running')
returning id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
          created_at, started_at, finished_at;

-- name: retry_turn^
update turns
set status = 'accepted', attempt = attempt + 1, run_id = null, stop_requested = false, answer = null, usage = null,
    error = null, started_at = null, finished_at = null
where user_id = :user_id and id = :id and status in ('failed', 'stopped')
returning id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
          created_at, started_at, finished_at;

-- name: find_work
-- The oldest open turn of each conversation, of all users: within a conversation turns run one after the other.
select * from (
  select distinct on (conversation_id)
         id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
         created_at, started_at, finished_at
  from turns where status in ('accepted', 'running')
  order by conversation_id, created_at, id) t
order by created_at
limit :limit;

-- name: find_running_turns
select id, conversation_id, text, started_at from turns
where user_id = :user_id and status = 'running' order by started_at limit 50;

-- name: find_open_turns
select id from turns where user_id = :user_id and status in ('accepted', 'running') order by created_at limit 50;

-- name: turn_started^
update turns set status = 'running', run_id = coalesce(:run_id, run_id),
       started_at = coalesce(started_at, :now)
where user_id = :user_id and id = :id and attempt = :attempt and status in ('accepted', 'running')
  and exists (select from agents a where a.user_id = :user_id and a.lease_token = :lease_token)
returning id, stop_requested, commands;

-- name: turn_taken_up_again^
-- After a crash: a further attempt, with the run that goes on (run_id) or a new one (null).
update turns set attempt = attempt + 1, run_id = :run_id
where user_id = :user_id and id = :id and attempt = :attempt and status in ('accepted', 'running')
  and exists (select from agents a where a.user_id = :user_id and a.lease_token = :lease_token)
returning id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
          created_at, started_at, finished_at;

-- name: turn_finished$
update turns set status = :status, answer = :answer, usage = :usage, error = :error, finished_at = :now
where user_id = :user_id and id = :id and attempt = :attempt and status in ('accepted', 'running')
  and exists (select from agents a where a.user_id = :user_id and a.lease_token = :lease_token)
returning id;

-- name: append_events^
-- Numbers, stores and announces a batch in one statement; null where the lease or the conversation is gone, or the
-- turn has ended: nothing comes behind its end. lease_token null: the writer is the user's own request.
-- The turn is looked at behind the conversation's lock and as it is then, not as it was when the statement began: one
-- that was under way, or was held up in the network, while the turn ended would else still see it open.
-- batch names it: one that was written is known by that when it comes again because nobody said so. Within a
-- conversation only one turn at a time writes such batches, so the last one's name is enough.
-- Counts their bytes, too, for the conversation and for its user, and says how many are left of the user's budget.
with held as materialized (
  select c.id, c.last_seq, c.last_batch from conversations c where c.user_id = :user_id and c.id = :conversation_id for no key update
), going_on as materialized (
  select t.id from turns t
  where exists (select from held) and t.user_id = :user_id and t.id = any(:turn_ids::uuid[])
    and t.status in ('accepted', 'running')
  for share
), moved as (
  update conversations c
  set last_seq = c.last_seq + :count, updated_at = :now, last_batch = coalesce(:batch::uuid, c.last_batch),
      kept_bytes = c.kept_bytes + :bytes::bigint
  where c.user_id = :user_id and c.id = :conversation_id
    and not exists (select from held h where h.last_batch = :batch::uuid)
    and (:lease_token::bigint is null
         or (exists (select from agents a where a.user_id = :user_id and a.lease_token = :lease_token::bigint)
             and exists (select from going_on)))
  returning c.last_seq
), counted as (
  update storage_used s set bytes = s.bytes + :bytes::bigint
  from moved m where s.user_id = :user_id and s.store = 'conversations'
  returning s.bytes
), added as (
  insert into events (conversation_id, seq, turn_id, type, data, created_at)
  select :conversation_id, m.last_seq - :count + n.number, n.turn_id, n.type, n.data::jsonb, :now
  from moved m, unnest(:turn_ids::uuid[], :types::text[], :datas::text[]) with ordinality as n(turn_id, type, data, number)
  returning 1
)
select done.last_seq,
       coalesce((select p.conversation_bytes from agents a join plans p on p.name = a.plan where a.user_id = :user_id),
                :most_bytes::bigint)
       - coalesce((select u.bytes from counted u),
                  (select s.bytes from storage_used s where s.user_id = :user_id and s.store = 'conversations'), 0) as bytes_left
from (
  select m.last_seq from moved m, (select count(*) from added) a, pg_notify('conversations', :conversation_id::text)
  union all
  select h.last_seq from held h where h.last_batch = :batch::uuid) done;

-- name: read_events
select e.seq, e.turn_id, e.type, e.data
from events e join conversations c on c.id = e.conversation_id
where c.user_id = :user_id and e.conversation_id = :conversation_id and e.seq > :after
order by e.seq
limit :limit;

-- name: find_unwritten
-- Conversations whose transcript in the object store is behind, and in which nothing is under way.
select c.id, c.user_id, c.title, c.created_at, c.updated_at, c.last_seq from conversations c
where c.written_seq < c.last_seq
  and not exists (select from turns t where t.user_id = c.user_id and t.conversation_id = c.id and t.status in ('accepted', 'running'))
order by c.updated_at
limit :limit;

-- name: all_turns
select id, conversation_id, user_id, text, attachments, status, attempt, run_id, stop_requested, answer, usage, error,
       created_at, started_at, finished_at
from turns where user_id = :user_id and conversation_id = :conversation_id
order by created_at, id
limit 10000;

-- name: transcript_written$
update conversations set written_seq = greatest(written_seq, :seq) where user_id = :user_id and id = :id
returning id;

-- name: count_unsent$
-- Beside this one.
select count(*) from attachments where user_id = :user_id and sent_at is null and id <> :id;

-- name: find_reserved$
-- What this one counts as already; null: it is not there yet.
select coalesce(size, reserved) from attachments where user_id = :user_id and id = :id;

-- name: begin_attachment^
-- Behind the lock on the user's count. The same id again is the same file anew.
insert into attachments (id, user_id, name, media_type, reserved, created_at)
values (:id, :user_id, :name, :media_type, :reserved, :now)
on conflict (id) do update
set name = excluded.name, media_type = excluded.media_type, reserved = excluded.reserved,
    created_at = excluded.created_at
where attachments.user_id = :user_id and attachments.sent_at is null
returning id;

-- name: complete_attachment^
update attachments set size = :size where user_id = :user_id and id = :id and sent_at is null
returning id, name, media_type, size;

-- name: renew_attachment^
-- One that waits to be sent waits from now on.
update attachments set created_at = :now where user_id = :user_id and id = :id and size is not null and sent_at is null
returning id, name, media_type, size;

-- name: was_sent$
-- Null: there is no such attachment.
select sent_at is not null from attachments where user_id = :user_id and id = :id;

-- name: find_attachments
select id, name, media_type, size from attachments
where user_id = :user_id and id = any(:ids::uuid[]) and size is not null;

-- name: send_attachments
update attachments set turn_id = :turn_id, sent_at = :now
where user_id = :user_id and id = any(:ids::uuid[]) and size is not null and sent_at is null
returning id;

-- name: drop_unsent_attachment$
-- Its object goes with the next look at what is loose.
update attachments set sent_at = :now where user_id = :user_id and id = :id and sent_at is null returning id;

-- name: list_attachments
select id, name, media_type, size from attachments
where user_id = :user_id and sent_at is not null and turn_id is not null order by id;

-- name: loose_attachments
-- Of one user or of all: what no message has, and from now on none can take.
update attachments a set sent_at = coalesce(a.sent_at, :now)
where a.turn_id is null and a.id in (
  select id from attachments
  where turn_id is null and (sent_at is not null or created_at < :before)
    and (:user_id::uuid is null or user_id = :user_id::uuid)
  order by created_at limit :limit)
returning a.id, a.user_id;

-- name: drop_attachment!
delete from attachments where user_id = :user_id and id = :id;
