-- name: create_agent!
insert into agents (user_id, runtime, broker_token_hash, since, last_active_at)
values (:user_id, :runtime, :broker_token_hash, :now, :now)
on conflict (user_id) do nothing;

-- name: find_agents
select user_id, slot, runtime, desired, state, since, progress, runtime_state, egress, last_active_at, failures,
       retry_at, error, next_wake_at, restart_asked, image, lease_token, schedule_unread, revision,
       saved_at, snapshot_generation, save_problem,
       p.name as plan, p.memory_bytes, p.cpus, p.pids, p.disk_bytes, p.pause_after, p.stop_after, p.max_awake,
       p.snapshot_files, p.snapshot_bytes, p.snapshot_file_bytes, p.kept_snapshot_bytes, p.conversations,
       p.conversation_bytes, p.delivery_bytes, p.attachment_bytes, p.egress_policy,
       exists (select from users u where u.id = a.user_id and u.status <> 'active') as shut_out
from agents a join plans p on p.name = a.plan where user_id = any(:user_ids::uuid[]);

-- name: list_agents
-- For operators: every agent with its user's address.
select u.email, a.state, a.desired, a.since, a.last_active_at, a.failures, a.revision,
       a.error ->> 'message' as error, a.user_id
from agents a join users u on u.id = a.user_id
where :after::uuid is null or a.user_id > :after::uuid
order by a.user_id
limit :limit;

-- name: find_holds
-- What keeps these agents awake now: their open turns, and the holds that have not expired.
select a.user_id, held.* from unnest(:user_ids::uuid[]) as a (user_id) cross join lateral (
  select 'turn' as reason, id::text as reference, null::timestamptz as until, null::text as note
  from turns where user_id = a.user_id and status in ('accepted', 'running')
  union all
  select reason, reference, expires_at, note from holds where user_id = a.user_id and expires_at > :now
  order by reason, reference
  limit 50
) held;

-- name: find_broker_token_owner^
-- Only while the holder of the lease under which the token was made has the agent running: not while it is stopped,
-- not once the lease is given back or taken over, and not of a suspended user. `leased`: the lease has not expired.
select a.user_id, a.lease_expires_at > clock_timestamp() as leased
from agents a join users u on u.id = a.user_id
where a.broker_token_hash = :token_hash and a.broker_token_lease = a.lease_token and a.lease_owner is not null
  and a.state in ('starting', 'awake', 'paused') and u.status = 'active';

-- name: set_broker_token$
update agents set broker_token_hash = :token_hash, broker_token_lease = :lease_token
where user_id = :user_id and lease_token = :lease_token
returning user_id;

-- name: apply_state$
-- Guarded by the fencing token: a replica that lost its lease changes nothing. Who was told to wake meanwhile is not
-- told to stay asleep by one who read the row before.
update agents
set state = :state, since = :now, progress = null, error = :error, failures = :failures, retry_at = :retry_at,
    runtime_state = :runtime_state, image = coalesce(:image, image),
    desired = case when desired = 'awake' then desired else coalesce(:desired, desired) end,
    restart_asked = restart_asked and :state <> 'starting',
    schedule_unread = schedule_unread or :state = 'awake'
where user_id = :user_id and lease_token = :lease_token
returning user_id;

-- name: apply_progress$
update agents set progress = :progress
where user_id = :user_id and lease_token = :lease_token
returning user_id;

-- name: apply_pause$
-- The idle rule once more, in the transaction that commits it: what came meanwhile wins.
update agents a
set state = 'paused', desired = 'paused', since = :now, progress = null, schedule_unread = false,
    schedule = case when :planned then :schedule::jsonb else schedule end,
    next_wake_at = case when :planned then :next_wake_at::timestamptz else next_wake_at end
where a.user_id = :user_id and a.lease_token = :lease_token and a.state = 'awake'
  and a.last_active_at <= :idle_since
  and not exists (select from turns t where t.user_id = a.user_id and t.status in ('accepted', 'running'))
  and not exists (select from holds h where h.user_id = a.user_id and h.expires_at > :now)
returning a.user_id;

-- name: apply_stopping$
-- As apply_pause; a stop that somebody asked for (idle_since null) looks at what is under way and whether it is
-- still asked for, one that is `forced` only at turns. An agent that is paused already, or has failed, can not be
-- asked what it has planned: then what is known stays.
update agents a
set state = 'stopping', desired = 'stopped', since = :now, progress = null, schedule_unread = false,
    schedule = case when :planned then :schedule::jsonb else schedule end,
    next_wake_at = case when :planned then :next_wake_at::timestamptz else next_wake_at end
where a.user_id = :user_id and a.lease_token = :lease_token
  and (:forced or a.desired = 'stopped' or a.last_active_at <= :idle_since::timestamptz)
  and not exists (select from turns t where t.user_id = a.user_id and t.status in ('accepted', 'running'))
  and (:forced or not exists (select from holds h where h.user_id = a.user_id and h.expires_at > :now))
returning a.user_id;

-- name: ask_awake!
-- One that has failed, and may have been given up, is tried again at once.
update agents set desired = 'awake', last_active_at = :now,
  retry_at = case when state = 'failed' then :now::timestamptz end,
  failures = case when state = 'failed' then 0 else failures end
where user_id = :user_id;

-- name: ask_stopped$
update agents a set desired = 'stopped'
where user_id = :user_id
  and not exists (select from turns t where t.user_id = a.user_id and t.status in ('accepted', 'running'))
returning user_id;

-- name: shut_out!
-- Its user is shut out: nothing holds it awake, nothing starts it again, and its token is void at once.
with held as (delete from holds where user_id = :user_id)
update agents set desired = 'stopped', restart_asked = false, broker_token_hash = :nobody where user_id = :user_id;

-- name: ask_restart!
update agents set restart_asked = true, desired = 'awake', last_active_at = :now, failures = 0,
  retry_at = case when state = 'failed' then :now::timestamptz end
where user_id = :user_id;

-- name: set_egress$
update agents set egress = :egress where user_id = :user_id and egress <> :egress returning user_id;

-- name: spend_egress$
-- Books bytes that an agent is about to exchange with the internet; gives nothing where the day's are used up.
with forgotten as (delete from egress_days where user_id = :user_id and day < :keep_from)
insert into egress_days (user_id, day, bytes)
select :user_id, :day, cast(:bytes as bigint) where :bytes <= :most
on conflict (user_id, day) do update set bytes = egress_days.bytes + excluded.bytes
where egress_days.bytes + excluded.bytes <= :most
returning bytes;

-- name: give_egress_back!
update egress_days set bytes = greatest(0, bytes - :bytes) where user_id = :user_id and day = :day;

-- name: touch!
update agents set last_active_at = greatest(last_active_at, :now) where user_id = :user_id;

-- name: add_hold$
-- At most so many for one agent; renewing one that there is always works.
insert into holds (user_id, reason, reference, expires_at, note)
select :user_id::uuid, :reason::text, :reference::text, :expires_at::timestamptz, :note::text
where (select count(*) from holds where user_id = :user_id and expires_at > :now) < :most
   or exists (select from holds where user_id = :user_id and reason = :reason and reference = :reference)
on conflict (user_id, reason, reference) do update set expires_at = excluded.expires_at, note = excluded.note
returning user_id;

-- name: drop_hold$
delete from holds where user_id = :user_id and reason = :reason and reference = :reference returning user_id;

-- name: drop_expired_holds!
delete from holds where expires_at <= :now;

-- name: find_schedule$
select schedule from agents where user_id = :user_id;

-- name: apply_schedule$
update agents set schedule = :schedule, next_wake_at = :next_wake_at
where user_id = :user_id and lease_token = :lease_token
returning user_id;

-- name: find_due_agents
-- Agents that somebody must take care of and nobody does: wanted awake (Agent.wanted) and not, asleep while a job
-- of theirs is due, told to sleep when they had failed, or left behind by a lost lease. A hint tells of most of
-- them sooner.
-- Of those named, or of all.
select user_id from agents
where (:user_ids::uuid[] is null or user_id = any(:user_ids::uuid[]))
  and (lease_expires_at is null or lease_expires_at <= now())
  and (((desired = 'awake' or schedule_unread) and (state = 'stopped' or (state = 'failed' and retry_at <= :now))
        and exists (select from users u where u.id = agents.user_id and u.status = 'active'))
    or (state = 'stopped' and next_wake_at <= :wake_before
        and exists (select from users u where u.id = agents.user_id and u.status = 'active'))
    or (desired = 'stopped' and state = 'failed' and (retry_at is null or not schedule_unread)
        and not exists (select from holds h where h.user_id = agents.user_id and h.expires_at > :now))
    or state in ('starting', 'awake', 'paused', 'stopping'))
order by last_active_at desc
limit :limit;

-- name: expire_leases!
-- Only where this process knows that no other can be alive: the embedded database admits one at a time.
update agents set lease_owner = null, lease_expires_at = now();

-- name: list_plans
select name, memory_bytes, cpus, pids, disk_bytes, pause_after, stop_after, max_awake,
  snapshot_files, snapshot_bytes, snapshot_file_bytes, kept_snapshot_bytes, conversations, conversation_bytes,
  delivery_bytes, attachment_bytes, egress_policy as egress
from plans order by name;

-- name: put_plan!
insert into plans (name, memory_bytes, cpus, pids, disk_bytes, pause_after, stop_after, max_awake,
  snapshot_files, snapshot_bytes, snapshot_file_bytes, kept_snapshot_bytes, conversations, conversation_bytes,
  delivery_bytes, attachment_bytes, egress_policy)
values (:name, :memory_bytes, :cpus, :pids, :disk_bytes, :pause_after, :stop_after, :max_awake,
  :snapshot_files, :snapshot_bytes, :snapshot_file_bytes, :kept_snapshot_bytes, :conversations, :conversation_bytes,
  :delivery_bytes, :attachment_bytes, :egress)
on conflict (name) do update
set memory_bytes = excluded.memory_bytes, cpus = excluded.cpus, pids = excluded.pids, disk_bytes = excluded.disk_bytes,
    pause_after = excluded.pause_after, stop_after = excluded.stop_after, max_awake = excluded.max_awake,
    snapshot_files = excluded.snapshot_files, snapshot_bytes = excluded.snapshot_bytes,
    snapshot_file_bytes = excluded.snapshot_file_bytes, kept_snapshot_bytes = excluded.kept_snapshot_bytes,
    conversations = excluded.conversations, conversation_bytes = excluded.conversation_bytes,
    delivery_bytes = excluded.delivery_bytes, attachment_bytes = excluded.attachment_bytes,
    egress_policy = excluded.egress_policy;

-- name: assign_plan$
update agents a set plan = p.name from plans p
where a.user_id = :user_id and p.name = :plan
returning a.user_id;

-- name: find_idlest_agents
select a.user_id from agents a
where a.user_id = any(:user_ids::uuid[]) and a.state in ('awake', 'paused')
  and not exists (select from turns t where t.user_id = a.user_id and t.status in ('accepted', 'running'))
  and not exists (select from holds h where h.user_id = a.user_id and h.expires_at > now())
order by a.last_active_at
limit 100;
