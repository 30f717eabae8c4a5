-- name: create_endpoint^
-- Nothing where the user has as many as may be.
insert into channel_endpoints (id, user_id, channel, name, settings, sealed, created_at, updated_at)
select :id::uuid, :user_id::uuid, :channel::text, :name::text, :settings::jsonb, :sealed::bytea, :now::timestamptz,
       :now::timestamptz
where (select count(*) from channel_endpoints where user_id = :user_id::uuid) < :most
returning id, user_id, channel, name, settings, active, created_at, updated_at;

-- name: list_endpoints
select id, user_id, channel, name, settings, active, created_at, updated_at
from channel_endpoints where user_id = :user_id order by created_at, id limit 200;

-- name: list_all_endpoints
-- For operators.
select u.email, e.id, e.channel, e.name, e.active, e.created_at,
       (select count(*) from deliveries d where d.endpoint_id = e.id and d.state in ('accepted', 'answering')) as open,
       (select count(*) from deliveries d where d.endpoint_id = e.id and d.state = 'dead') as dead,
       (select count(*) from outbox o where o.endpoint_id = e.id and o.state = 'pending') as owed
from channel_endpoints e join users u on u.id = e.user_id
where (:email::text is null or lower(u.email) = lower(:email::text))
order by u.email, e.created_at limit 10000;

-- name: endpoint_owner$
-- For operators.
select user_id from channel_endpoints where id = :id;

-- name: find_endpoint^
select id, user_id, channel, name, settings, active, created_at, updated_at, sealed
from channel_endpoints where user_id = :user_id and id = :id;

-- name: find_endpoints
-- By their addresses, for webhooks and for the workers; who is suspended has none.
select e.id, e.user_id, e.channel, e.settings, e.sealed from channel_endpoints e
where e.id = any(:ids::uuid[]) and e.active
  and exists (select from users u where u.id = e.user_id and u.status = 'active');

-- name: update_endpoint^
update channel_endpoints set settings = :settings, sealed = :sealed, active = true, updated_at = :now
where user_id = :user_id and id = :id
returning id, user_id, channel, name, settings, active, created_at, updated_at;

-- name: rename_endpoint^
update channel_endpoints set name = :name, updated_at = :now where user_id = :user_id and id = :id
returning id, user_id, channel, name, settings, active, created_at, updated_at;

-- name: delete_endpoint$
delete from channel_endpoints where user_id = :user_id and id = :id returning id;

-- name: keep_deliveries
-- A batch of webhooks, in one statement: a known external id changes nothing. Returns the endpoints that there are,
-- what is left of their user's budget (null: the webhooks did not fit into it), and how many were added of all.
-- The count of each user is moved and compared in one step, with what is carried from batches of `keep_trusted`. A user
-- whose webhooks of a batch do not fit together has none of them kept. What was known already is taken off again by
-- `uncount_known`.
with known as materialized (
  select e.id, e.user_id from channel_endpoints e where e.id = any(:endpoint_ids::uuid[]) order by e.id for key share
), asked as materialized (
  select n.*, k.user_id
  from unnest(:ids::uuid[], :endpoint_ids::uuid[], :external_ids::text[], :threads::text[], :bodies::bytea[],
              :times::timestamptz[], :next_times::timestamptz[], :urgent::boolean[], :togethers::text[])
       as n (id, endpoint_id, external_id, thread, body, received_at, next_at, urgent, together)
  join known k on k.id = n.endpoint_id
), counted as (
  update storage_used s
  set items = s.items + w.items + coalesce(c.items, 0), bytes = s.bytes + w.bytes + coalesce(c.bytes, 0)
  from (select a.user_id, count(*) as items, sum(500 + octet_length(a.body)) as bytes
        from asked a group by a.user_id order by a.user_id) w
  left join unnest(:carrying::uuid[], :carried_items::bigint[], :carried_bytes::bigint[]) as c (user_id, items, bytes)
    on c.user_id = w.user_id
  where s.user_id = w.user_id and s.store = 'deliveries'
    and s.bytes + w.bytes + coalesce(c.bytes, 0) <= coalesce(
      (select p.delivery_bytes from agents g join plans p on p.name = g.plan where g.user_id = s.user_id), :most_bytes::bigint)
  returning s.user_id, coalesce(
    (select p.delivery_bytes from agents g join plans p on p.name = g.plan where g.user_id = s.user_id), :most_bytes::bigint)
    - s.bytes as bytes_left
), added as (
  insert into deliveries (id, user_id, endpoint_id, external_id, thread, body, received_at, next_at, urgent, together)
  select n.id, n.user_id, n.endpoint_id, n.external_id, n.thread, n.body, n.received_at, n.next_at, n.urgent, n.together
  from asked n join counted c on c.user_id = n.user_id
  on conflict (endpoint_id, external_id) do nothing
  returning 1
)
select k.id, k.user_id, c.bytes_left, (select count(*) from added) as added
from known k left join counted c on c.user_id = k.user_id, pg_notify('deliveries', '');

-- name: keep_trusted
-- The same for users who were all counted a moment ago, with room for this batch; it is counted with a later one.
with known as (
  select e.id, e.user_id from channel_endpoints e where e.id = any(:endpoint_ids::uuid[]) order by e.id for key share
), added as (
  insert into deliveries (id, user_id, endpoint_id, external_id, thread, body, received_at, next_at, urgent, together)
  select n.id, k.user_id, k.id, n.external_id, n.thread, n.body, n.received_at, n.next_at, n.urgent, n.together
  from unnest(:ids::uuid[], :endpoint_ids::uuid[], :external_ids::text[], :threads::text[], :bodies::bytea[],
              :times::timestamptz[], :next_times::timestamptz[], :urgent::boolean[], :togethers::text[])
       as n (id, endpoint_id, external_id, thread, body, received_at, next_at, urgent, together)
  join known k on k.id = n.endpoint_id
  on conflict (endpoint_id, external_id) do nothing
  returning 1
)
select k.id, k.user_id, (select count(*) from added) as added from known k, pg_notify('deliveries', '');

-- name: count_deliveries!
-- What was kept for trusted users since they were counted.
update storage_used s set items = s.items + c.items, bytes = s.bytes + c.bytes
from (select * from unnest(:carrying::uuid[], :carried_items::bigint[], :carried_bytes::bigint[])
        as c (user_id, items, bytes) order by c.user_id) c
where s.user_id = c.user_id and s.store = 'deliveries';

-- name: uncount_known!
-- Those of a batch that were known already were counted for nothing.
update storage_used s set items = s.items - n.items, bytes = s.bytes - n.bytes
from (
  select e.user_id, count(*) as items, sum(500 + a.size) as bytes
  from unnest(:ids::uuid[], :endpoint_ids::uuid[], :sizes::bigint[]) as a (id, endpoint_id, size)
  join channel_endpoints e on e.id = a.endpoint_id
  where not exists (select from deliveries d where d.id = a.id)
  group by e.user_id) n
where s.user_id = n.user_id and s.store = 'deliveries';

-- name: refuse_deliveries
-- Notes for their users that something was refused, and returns those that are kept already.
with marked as (
  update storage_used set refused_at = :now
  where store = 'deliveries' and user_id in (select user_id from channel_endpoints where id = any(:endpoint_ids::uuid[]))
)
select a.id from unnest(:ids::uuid[], :endpoint_ids::uuid[], :external_ids::text[]) as a (id, endpoint_id, external_id)
where exists (select from deliveries d where d.endpoint_id = a.endpoint_id and d.external_id = a.external_id);

-- name: claim_deliveries
-- The oldest open one of each thread, found by leaps over the index, where it is due and nobody works on it; and what
-- may pass its queue. What somebody has who is suspended waits.
with recursive heads as (
  (select d.endpoint_id, d.thread, d.id from deliveries d where d.state in ('accepted', 'answering')
   order by d.endpoint_id, d.thread, d.received_at, d.id limit 1)
  union all
  select n.endpoint_id, n.thread, n.id from heads h cross join lateral (
    select d.endpoint_id, d.thread, d.id from deliveries d
    where d.state in ('accepted', 'answering') and (d.endpoint_id, d.thread) > (h.endpoint_id, h.thread)
    order by d.endpoint_id, d.thread, d.received_at, d.id limit 1) n
), urgent as (
  -- Likewise one of each thread, so that nobody's flood of them keeps others waiting.
  (select d.endpoint_id, d.thread, d.id from deliveries d where d.urgent and d.state = 'accepted'
   order by d.endpoint_id, d.thread, d.received_at, d.id limit 1)
  union all
  select n.endpoint_id, n.thread, n.id from urgent u cross join lateral (
    select d.endpoint_id, d.thread, d.id from deliveries d
    where d.urgent and d.state = 'accepted' and (d.endpoint_id, d.thread) > (u.endpoint_id, u.thread)
    order by d.endpoint_id, d.thread, d.received_at, d.id limit 1) n
), found as (
  select h.id from heads h union select u.id from urgent u
), due as (
  select d.id from deliveries d
  where d.id in (select f.id from found f) and d.state = 'accepted' and d.next_at <= :now::timestamptz
    and (d.lease_expires_at is null or d.lease_expires_at <= :now::timestamptz)
    and exists (select from users u where u.id = d.user_id and u.status = 'active')
  order by d.next_at limit :limit for update skip locked
)
update deliveries d set lease_token = d.lease_token + 1, lease_expires_at = :until::timestamptz
from due where d.id = due.id
returning d.id, d.user_id, d.endpoint_id, d.external_id, d.thread, d.body, d.received_at, d.attempts, d.replays,
          d.urgent, d.together, d.joined_to, d.lease_token;

-- name: delivery_in_turn$
-- It does not pass the queue after all.
update deliveries set urgent = false, lease_expires_at = null
where user_id = :user_id and id = :id and lease_token = :token and state = 'accepted'
returning id;

-- name: behind_delivery
-- What waits behind it in its thread, the oldest first: what may be one message with it.
select d.id, d.together, d.received_at, d.next_at, length(d.body) as size from deliveries d
where d.user_id = :user_id and d.endpoint_id = :endpoint_id and d.thread = :thread and d.state = 'accepted'
  and d.id <> :id and (d.received_at, d.id) > (:received_at::timestamptz, :id::uuid)
  and not d.urgent and d.joined_to is null
order by d.received_at, d.id limit :limit;

-- name: join_deliveries$
-- They are one message from now on, the first one's; the others end here. Null: somebody else has the first one now.
with first as (
  update deliveries set joined_to = id
  where user_id = :user_id and id = :id and lease_token = :token and state = 'accepted' and joined_to is null
  returning id
), others as (
  update deliveries d set state = 'done', joined_to = f.id, error = :error, finished_at = :now
  from first f where d.user_id = :user_id and d.id = any(:ids::uuid[]) and d.state = 'accepted' and d.joined_to is null
)
select id from first;

-- name: joined_bodies
select body from deliveries
where user_id = :user_id and endpoint_id = :endpoint_id and joined_to = :id order by received_at, id limit :limit;

-- name: stop_thread
-- What is open in a thread before a stop phrase ends here, also what somebody works on this moment.
update deliveries
set state = 'ignored', error = :error, finished_at = :now, lease_token = lease_token + 1, lease_expires_at = null
where user_id = :user_id and endpoint_id = :endpoint_id and thread = :thread and state in ('accepted', 'answering')
  and id <> :id and not urgent and (received_at, id) < (:received_at::timestamptz, :id::uuid)
returning id;

-- name: why_closed$
select error ->> 'code' from deliveries where user_id = :user_id and id = :id and state = 'ignored';

-- name: drop_thread!
-- The next message of the thread begins a new conversation; the old one stays.
delete from channel_threads where user_id = :user_id and endpoint_id = :endpoint_id and thread = :thread;

-- name: delivery_answering$
-- Its turn is accepted. Null: somebody else has it now.
update deliveries
set state = 'answering', turn_id = :turn_id, conversation_id = :conversation_id, sender = :sender, reply = :reply,
    typing_at = null, error = null, lease_expires_at = null
where user_id = :user_id and id = :id and lease_token = :token and state = 'accepted'
returning id;

-- name: delivery_closed$
-- It ends here (ignored, waiting, dead), or ended well. Null: somebody else has it now.
update deliveries
set state = :state, error = :error, sender = coalesce(:sender::text, sender), reply = coalesce(:reply::jsonb, reply),
    attempts = attempts + :failed::int, finished_at = :now, lease_expires_at = null
where user_id = :user_id and id = :id and lease_token = :token and state in ('accepted', 'answering')
returning id;

-- name: prolong_delivery$
-- Null: somebody else has it now.
update deliveries set lease_expires_at = :until
where user_id = :user_id and id = :id and lease_token = :token and state = 'accepted'
returning id;

-- name: delivery_later$
update deliveries set attempts = attempts + :failed, next_at = :next_at, error = :error, lease_expires_at = null
where user_id = :user_id and id = :id and lease_token = :token and state = 'accepted'
returning id;

-- name: answered_deliveries
-- Those whose turn has ended, or is gone with its conversation; locked until the transaction ends.
select d.id, d.user_id, d.endpoint_id, d.thread, d.reply, d.replays, d.lease_token, e.channel, e.settings,
       t.status, t.answer, t.error
from deliveries d
join channel_endpoints e on e.id = d.endpoint_id
left join turns t on t.id = d.turn_id and t.user_id = d.user_id
where d.state = 'answering' and (t.id is null or t.status in ('completed', 'failed', 'stopped'))
order by t.finished_at limit :limit
for update of d skip locked;

-- name: typing_deliveries
-- Those whose senders are to be shown again that an answer is on its way; counted as shown.
with due as (
  select d.id from deliveries d
  where d.state = 'answering' and (d.typing_at is null or d.typing_at <= :before::timestamptz)
  order by d.typing_at nulls first limit :limit for update skip locked
)
update deliveries d set typing_at = :now from due where d.id = due.id
returning d.endpoint_id, d.reply;

-- name: answering_conversations
select conversation_id from deliveries where state = 'answering' limit 1000;

-- name: find_thread$
select conversation_id from channel_threads where user_id = :user_id and endpoint_id = :endpoint_id and thread = :thread;

-- name: keep_thread$
-- The conversation of that thread from now on: the one that there is, if there is one.
with made as (
  insert into channel_threads (user_id, endpoint_id, thread, conversation_id, created_at)
  values (:user_id, :endpoint_id, :thread, :conversation_id, :now)
  on conflict (endpoint_id, thread) do nothing
  returning conversation_id
)
select conversation_id from made
union all
select conversation_id from channel_threads where user_id = :user_id and endpoint_id = :endpoint_id and thread = :thread;

-- name: owe!
insert into outbox (id, user_id, endpoint_id, delivery_id, run, part, thread, reply, text, next_at, created_at)
values (:id, :user_id, :endpoint_id, :delivery_id, :run, :part, :thread, :reply, :text, :now, :now)
on conflict (delivery_id, run, part) where run >= 0 do nothing;

-- name: find_sender^
select sender, name, state, code_hash, code_expires_at, told_at from channel_senders
where user_id = :user_id and endpoint_id = :endpoint_id and sender = :sender;

-- name: lock_endpoint$
-- Serialises who is let in and who asks.
select id from channel_endpoints where user_id = :user_id and id = :id for no key update;

-- name: count_codes$
-- Codes that are out, of others than this sender.
select count(*) from channel_senders
where user_id = :user_id and endpoint_id = :endpoint_id and state = 'pending' and code_expires_at > :now and sender <> :sender;

-- name: tell_code!
insert into channel_senders
  (user_id, endpoint_id, sender, name, state, code_hash, code_expires_at, told_at, created_at, updated_at)
values (:user_id, :endpoint_id, :sender, :name, 'pending', :code_hash, :expires_at, :now, :now, :now)
on conflict (endpoint_id, sender) do update
set name = excluded.name, code_hash = excluded.code_hash, code_expires_at = excluded.code_expires_at,
    told_at = excluded.told_at, updated_at = excluded.updated_at
where channel_senders.state = 'pending';

-- name: note_stranger!
-- Somebody of a group who was not answered: the owner can let them in by name. Only so many are remembered.
insert into channel_senders (user_id, endpoint_id, sender, name, state, created_at, updated_at)
select :user_id::uuid, :endpoint_id::uuid, :sender::text, :name::text, 'pending', :now::timestamptz, :now::timestamptz
where (select count(*) from channel_senders
       where user_id = :user_id::uuid and endpoint_id = :endpoint_id::uuid and state = 'pending') < :most
on conflict (endpoint_id, sender) do nothing;

-- name: drop_stale_senders!
delete from channel_senders
where user_id = :user_id and endpoint_id = :endpoint_id and state = 'pending' and updated_at < :before;

-- name: list_senders
select sender, name, state, code_expires_at, created_at, updated_at from channel_senders
where user_id = :user_id and endpoint_id = :endpoint_id order by state, updated_at desc, sender limit 500;

-- name: approve_code^
update channel_senders
set state = 'approved', code_hash = null, code_expires_at = null, updated_at = :now
where user_id = :user_id and endpoint_id = :endpoint_id and state = 'pending' and code_hash = :code_hash
  and code_expires_at > :now
returning sender, name, state, code_expires_at, created_at, updated_at;

-- name: set_sender^
insert into channel_senders (user_id, endpoint_id, sender, name, state, created_at, updated_at)
values (:user_id, :endpoint_id, :sender, '', :state, :now, :now)
on conflict (endpoint_id, sender) do update
set state = excluded.state, code_hash = null, code_expires_at = null, updated_at = excluded.updated_at
returning sender, name, state, code_expires_at, created_at, updated_at;

-- name: drop_sender$
delete from channel_senders where user_id = :user_id and endpoint_id = :endpoint_id and sender = :sender returning sender;

-- name: let_in!
-- What somebody who was let in has said before: the latest go on, the others are left.
with told as (
  select id, not body_dropped and row_number() over (order by received_at desc, id desc) <= :most as goes_on
  from deliveries
  where user_id = :user_id and endpoint_id = :endpoint_id and sender = :sender and state = 'waiting'
), moved as (
  update deliveries d
  set state = case when t.goes_on then 'accepted' else 'ignored' end, next_at = :now, attempts = 0,
      error = null, finished_at = case when t.goes_on then null else :now::timestamptz end
  from told t where d.user_id = :user_id and d.id = t.id
)
select pg_notify('deliveries', '');

-- name: list_deliveries
select d.id, d.external_id, d.thread, d.sender, d.received_at, d.state, d.attempts, d.replays, d.next_at, d.error,
       d.conversation_id, d.turn_id, d.finished_at, length(d.body) as size, d.body_dropped,
       o.sent, o.pending, o.dead, o.may_be_double, o.last_error
from deliveries d cross join lateral (
  select count(*) filter (where state = 'sent') as sent, count(*) filter (where state = 'pending') as pending,
         count(*) filter (where state = 'dead') as dead, coalesce(bool_or(may_be_double), false) as may_be_double,
         (array_agg(error order by seq desc) filter (where error is not null and state <> 'sent'))[1] as last_error
  from outbox where delivery_id = d.id and run = d.replays) o
where d.user_id = :user_id and d.endpoint_id = :endpoint_id
  and (:before::uuid is null or d.id < :before::uuid)
  and (:state::text is null or d.state = :state::text)
order by d.id desc limit :limit;

-- name: list_deliveries_of_all
-- For administrators: of everybody or of one user; not what was said, by whom and where.
select d.id, u.email, e.channel, d.endpoint_id, d.state, d.attempts, d.replays, d.received_at, d.finished_at, d.error,
       d.body_dropped, o.sent, o.pending, o.dead, o.may_be_double
from deliveries d
join users u on u.id = d.user_id
join channel_endpoints e on e.id = d.endpoint_id and e.user_id = u.id
cross join lateral (
  select count(*) filter (where state = 'sent') as sent, count(*) filter (where state = 'pending') as pending,
         count(*) filter (where state = 'dead') as dead, coalesce(bool_or(may_be_double), false) as may_be_double
  from outbox where delivery_id = d.id and run = d.replays) o
where (:before::uuid is null or d.id < :before::uuid)
  and (:state::text is null or d.state = :state::text)
  and (:email::text is null or lower(u.email) = lower(:email::text))
order by d.id desc limit :limit;

-- name: find_delivery^
select id, state, joined_to, body_dropped from deliveries
where user_id = :user_id and endpoint_id = :endpoint_id and id = :id;

-- name: replay_deliveries$
-- Run again: those named, or those that came in a time. Open ones stay as they are, and those without a body; parts of
-- another one's message go with that one. How many.
with moved as (
  update deliveries
  set state = 'accepted', attempts = 0, replays = replays + 1, next_at = :now, error = null, turn_id = null,
      finished_at = null, lease_token = lease_token + 1, lease_expires_at = null
  where user_id = :user_id and endpoint_id = :endpoint_id and state = any(:states::text[]) and not body_dropped
    and (joined_to is null or joined_to = id)
    and (:ids::uuid[] is null or id = any(:ids::uuid[]))
    and (:since::timestamptz is null or received_at >= :since::timestamptz)
    and (:till::timestamptz is null or received_at < :till::timestamptz)
  returning 1
)
select count(*) from moved, pg_notify('deliveries', '');

-- name: replay_deliveries_of_all
-- The same for administrators: of everybody or of one user. How many of whom.
with moved as (
  update deliveries
  set state = 'accepted', attempts = 0, replays = replays + 1, next_at = :now, error = null, turn_id = null,
      finished_at = null, lease_token = lease_token + 1, lease_expires_at = null
  where state = any(:states::text[]) and not body_dropped
    and (joined_to is null or joined_to = id)
    and (:email::text is null or user_id in (select id from users where lower(email) = lower(:email::text)))
    and (:ids::uuid[] is null or id = any(:ids::uuid[]))
    and (:since::timestamptz is null or received_at >= :since::timestamptz)
    and (:till::timestamptz is null or received_at < :till::timestamptz)
  returning user_id
)
select user_id, count(*) as count from moved, pg_notify('deliveries', '') group by user_id;

-- name: resend_outbox$
with moved as (
  update outbox set state = 'pending', attempts = 0, next_at = :now, error = null, lease_expires_at = null
  where user_id = :user_id and endpoint_id = :endpoint_id and delivery_id = :delivery_id and state = 'dead'
  returning 1
)
select count(*) from moved, pg_notify('outbox', '');

-- name: claim_outbox
-- As claim_deliveries. One whose lease ran out may have been sent by whoever had it.
with recursive heads as (
  (select o.endpoint_id, o.thread, o.id from outbox o where o.state = 'pending'
   order by o.endpoint_id, o.thread, o.seq limit 1)
  union all
  select n.endpoint_id, n.thread, n.id from heads h cross join lateral (
    select o.endpoint_id, o.thread, o.id from outbox o
    where o.state = 'pending' and (o.endpoint_id, o.thread) > (h.endpoint_id, h.thread)
    order by o.endpoint_id, o.thread, o.seq limit 1) n
), due as (
  select o.id from outbox o
  where o.id in (select h.id from heads h) and o.state = 'pending' and o.next_at <= :now::timestamptz
    and (o.lease_expires_at is null or o.lease_expires_at <= :now::timestamptz)
    and exists (select from users u where u.id = o.user_id and u.status = 'active')
  order by o.next_at limit :limit for update skip locked
)
update outbox o
set lease_token = o.lease_token + 1, lease_expires_at = :until::timestamptz,
    may_be_double = o.may_be_double or o.lease_expires_at is not null
from due where o.id = due.id
returning o.id, o.user_id, o.endpoint_id, o.delivery_id, o.run, o.part, o.thread, o.reply, o.text, o.attempts,
          o.lease_token;

-- name: outbox_sent$
update outbox set state = 'sent', sent_at = :now, error = null, lease_expires_at = null
where user_id = :user_id and id = :id and lease_token = :token and state = 'pending' returning id;

-- name: outbox_later$
update outbox
set attempts = attempts + 1, next_at = :next_at, error = :error, lease_expires_at = null,
    may_be_double = may_be_double or :uncertain
where user_id = :user_id and id = :id and lease_token = :token and state = 'pending' returning id;

-- name: outbox_hold_back!
-- The vendor asked to wait: that holds for all that this endpoint is owed.
update outbox set next_at = :next_at
where user_id = :user_id and endpoint_id = :endpoint_id and state = 'pending' and next_at < :next_at
  and lease_expires_at is null;

-- name: outbox_dead$
-- With the parts behind it: half an answer is not continued after a gap.
with died as (
  update outbox
  set state = 'dead', attempts = attempts + 1, error = :error, lease_expires_at = null,
      may_be_double = may_be_double or :uncertain
  where user_id = :user_id and id = :id and lease_token = :token and state = 'pending'
  returning id, delivery_id, run, part
), behind as (
  update outbox o set state = 'dead', error = :error, lease_expires_at = null
  from died d
  where o.user_id = :user_id and o.delivery_id = d.delivery_id and o.run = d.run and o.part > d.part
    and o.state = 'pending'
)
select id from died;

-- name: sweep_deliveries!
-- What ended long ago, and owes nothing any more. Of those that prove no time (see CountsOnce) the id stays known.
with gone as (
  delete from deliveries d
  where d.id in (
    select f.id from deliveries f
    where f.finished_at < :before and f.state in ('done', 'ignored', 'waiting', 'dead')
      and not exists (select from outbox o where o.delivery_id = f.id and o.state = 'pending')
    limit 5000)
  returning d.user_id, d.endpoint_id, d.external_id
)
insert into deliveries_forgotten (user_id, endpoint_id, external_id, forgotten_at)
select g.user_id, g.endpoint_id, g.external_id, :now from gone g
join channel_endpoints e on e.id = g.endpoint_id and e.channel = 'signed' and e.settings ->> 'mode' = 'hmac'
on conflict (endpoint_id, external_id) do nothing;

-- name: sweep_forgotten!
-- The latest of each endpoint stay.
delete from deliveries_forgotten f
using (
  select e.id, (select n.forgotten_at from deliveries_forgotten n where n.endpoint_id = e.id
                order by n.forgotten_at desc offset :most limit 1) as oldest
  from channel_endpoints e where e.channel = 'github' or e.channel = 'signed' and e.settings ->> 'mode' = 'hmac') x
where f.endpoint_id = x.id and f.forgotten_at <= x.oldest;

-- name: was_forgotten$
select true from deliveries_forgotten
where user_id = :user_id and endpoint_id = :endpoint_id and external_id = :external_id;

-- name: drop_bodies$
-- Of what was given up or ignored a while ago the body goes; the row stays to be looked at, and to be known as known.
with dropped as (
  update deliveries set body = '', body_dropped = true
  where id in (
    select id from deliveries
    where finished_at is not null and not body_dropped
      and ((state in ('dead', 'ignored') and finished_at < :before) or (state = 'waiting' and finished_at < :waiting_before))
    limit :limit)
  returning 1
)
select count(*) from dropped;

-- name: crowded_users
-- Whose budget is nearly used up, and how many bytes have to go.
select s.user_id, s.bytes - l.most / 2 as excess
from storage_used s cross join lateral (
  select coalesce((select p.delivery_bytes from agents a join plans p on p.name = a.plan where a.user_id = s.user_id),
                  :most_bytes::bigint) as most) l
where s.store = 'deliveries' and s.bytes > l.most / 4 * 3
order by s.bytes - l.most desc limit 1000;

-- name: make_room_of_bodies$
-- The oldest bodies of what has ended, those that were given up last, until so many bytes are free. How many.
with dropped as (
  update deliveries set body = '', body_dropped = true
  where user_id = :user_id and id in (
    select id from (
      select id, octet_length(body) as size,
             sum(octet_length(body)) over (order by (state = 'dead'), finished_at, id) as upto
      from deliveries where user_id = :user_id and finished_at is not null and octet_length(body) > 0) d
    where d.upto - d.size < :excess limit :limit)
  returning 1
)
select count(*) from dropped;

-- name: make_room_of_rows$
-- The oldest that have ended and owe nothing, with what was sent for them, until so many bytes are free. Ids that prove
-- no time stay known, as in `sweep_deliveries`; those of GitHub as well, whose copies are old only after a month. How
-- many.
with dropped as (
  delete from deliveries
  where user_id = :user_id and id in (
    select id from (
      select d.id, d.size, sum(d.size) over (order by d.finished_at, d.id) as upto
      from (
        select e.id, e.finished_at, delivery_size(e.body)
               + (select coalesce(sum(outbox_size(o.text)), 0) from outbox o where o.delivery_id = e.id) as size
        from deliveries e
        where e.user_id = :user_id and e.finished_at < :before
          and not exists (select from outbox o where o.delivery_id = e.id and o.state = 'pending')) d) d
    where d.upto - d.size < :excess limit :limit)
  returning user_id, endpoint_id, external_id
), known as (
  insert into deliveries_forgotten (user_id, endpoint_id, external_id, forgotten_at)
  select g.user_id, g.endpoint_id, g.external_id, :now from dropped g
  join channel_endpoints e on e.id = g.endpoint_id
    and (e.channel = 'github' or e.channel = 'signed' and e.settings ->> 'mode' = 'hmac')
  on conflict (endpoint_id, external_id) do nothing
)
select count(*) from dropped;

-- name: clear_deliveries$
-- All of an endpoint that have ended and owe nothing. Which ids stay known: as in `make_room_of_rows`. How many.
with dropped as (
  delete from deliveries d
  where d.user_id = :user_id and d.endpoint_id = :endpoint_id and d.finished_at is not null
    and not exists (select from outbox o where o.delivery_id = d.id and o.state = 'pending')
  returning user_id, endpoint_id, external_id
), known as (
  insert into deliveries_forgotten (user_id, endpoint_id, external_id, forgotten_at)
  select g.user_id, g.endpoint_id, g.external_id, :now from dropped g
  join channel_endpoints e on e.id = g.endpoint_id
    and (e.channel = 'github' or e.channel = 'signed' and e.settings ->> 'mode' = 'hmac')
  on conflict (endpoint_id, external_id) do nothing
)
select count(*) from dropped;
