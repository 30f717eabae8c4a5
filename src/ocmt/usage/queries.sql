-- name: lock_calls_of_user!
-- One call of a user opens at a time, so that parallel ones cannot pass a limit together. Ends with the transaction.
select pg_advisory_xact_lock(hashtextextended('model_calls ' || cast(:user_id as uuid)::text, 0));

-- name: count_calls_in_turn$
select count(*) from model_calls
where user_id = :user_id and turn_id = :turn_id
  and (error_code is null or error_code <> all (cast(:refusals as text[])));

-- name: sum_tokens$
-- Demo calls cost nothing, so they do not count.
-- A token from the provider's cache costs a tenth of another, and counts a tenth.
select coalesce(sum(input_tokens + output_tokens + cache_write_tokens + cache_read_tokens / 10), 0)::bigint
from model_calls
where user_id = :user_id and started_at >= :since and key_source <> 'demo';

-- name: open_call^
-- Opens a call where the limits allow it (then `opened`), in one statement: the agent waits for it. `calls`: those
-- before it since counted_from in that turn (turn_id null: outside all turns). `tokens`: as sum_tokens, 0 where
-- daily_tokens is null and so nothing limits them.
with used as (
select (select count(*) from model_calls
        where user_id = :user_id and turn_id is not distinct from :turn_id
          and (cast(:counted_from as timestamptz) is null or started_at >= :counted_from)
          and (error_code is null or error_code <> all (cast(:refusals as text[])))) as calls,
       (select coalesce(sum(input_tokens + output_tokens + cache_write_tokens + cache_read_tokens / 10), 0)::bigint
        from model_calls
        where user_id = :user_id and started_at >= :midnight and key_source <> 'demo'
          and cast(:daily_tokens as bigint) is not null) as tokens
), opened as (
insert into model_calls (id, user_id, turn_id, provider, model, key_source, started_at, input_tokens)
select :id, :user_id, :turn_id, :provider, :model, :key_source, cast(:started_at as timestamptz), :estimated_tokens
from used where used.calls < :turn_calls
  and (cast(:daily_tokens as bigint) is null or used.tokens < cast(:daily_tokens as bigint))
returning id
)
select used.calls, used.tokens, exists (select from opened) as opened from used;

-- name: record_refusal!
-- Once per turn and limit: an agent that keeps asking must not fill the ledger.
insert into model_calls (id, user_id, turn_id, provider, model, key_source, started_at, finished_at,
                         error_code, error_message)
select :id, :user_id, :turn_id, :provider, :model, :key_source, cast(:now as timestamptz), :now,
       cast(:error_code as text), :error_message
where not exists (
  select 1 from model_calls
  where user_id = :user_id and turn_id is not distinct from :turn_id and error_code = :error_code
    and started_at >= :since
);

-- name: close_call!
-- Token counts that are null leave the estimate of the opening in place.
update model_calls
set finished_at = :finished_at, status = :status, error_code = :error_code, error_message = :error_message,
    input_tokens = coalesce(:input_tokens, input_tokens),
    output_tokens = coalesce(:output_tokens, output_tokens),
    cache_read_tokens = coalesce(:cache_read_tokens, cache_read_tokens),
    cache_write_tokens = coalesce(:cache_write_tokens, cache_write_tokens)
where user_id = :user_id and id = :id and finished_at is null;

-- name: turn_usage^
select coalesce(sum(input_tokens + cache_read_tokens + cache_write_tokens), 0)::bigint as input_tokens,
       coalesce(sum(output_tokens), 0)::bigint as output_tokens,
       count(*) filter (where error_code is null or error_code <> all (cast(:refusals as text[]))) as calls
from model_calls
where user_id = :user_id and turn_id = :turn_id;

-- name: last_outcome^
-- A hang-up is no outcome: it says nothing of the provider.
select error_code, error_message from model_calls
where user_id = :user_id and turn_id = :turn_id and error_code is distinct from :client_gone
order by started_at desc, id desc
limit 1;

-- name: usage_since^
select count(*) as calls,
       count(*) filter (where finished_at is null and started_at < :open_since) as unfinished,
       coalesce(sum(input_tokens), 0)::bigint as input_tokens,
       coalesce(sum(output_tokens), 0)::bigint as output_tokens,
       coalesce(sum(cache_read_tokens), 0)::bigint as cache_read_tokens,
       coalesce(sum(cache_write_tokens), 0)::bigint as cache_write_tokens,
       coalesce(sum(input_tokens + output_tokens + cache_write_tokens + cache_read_tokens / 10)
                filter (where key_source <> 'demo'), 0)::bigint as tokens
from model_calls
where user_id = :user_id and started_at >= :since
  and (error_code is null or error_code <> all (cast(:refusals as text[])));
