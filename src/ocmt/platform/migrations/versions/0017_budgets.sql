-- Budgets: how much of each store one user keeps, counted by the statement that writes, and a bound for every table
-- that a user can fill. Expands only. docs/decisions/0032-budgets.md explains the choices, docs/reference/limits.md
-- lists every table with its bound.

-- Null: as the installation's settings say.
alter table plans
  add column conversations       bigint check (conversations > 0),         -- number of conversations
  add column conversation_bytes  bigint check (conversation_bytes > 0),    -- of messages, answers and events
  add column delivery_bytes      bigint check (delivery_bytes > 0),        -- of received webhooks and owed messages
  add column attachment_bytes    bigint check (attachment_bytes > 0),
  add column kept_snapshot_bytes bigint check (kept_snapshot_bytes > 0);   -- of all generations together

update plans set conversations = 20000, conversation_bytes = 2147483648, delivery_bytes = 1073741824,
  attachment_bytes = 4294967296 where name in ('pro', 'enterprise');

-- One row per user and store, locked by whoever is about to write, so that no two writers pass a limit together.
create table storage_used (
  user_id     uuid not null references users on delete cascade,
  store       text not null check (store in ('conversations', 'deliveries', 'attachments', 'snapshots')),
  items       bigint not null default 0,
  bytes       bigint not null default 0,
  refused_at  timestamptz,             -- when something was last refused because the store was full
  primary key (user_id, store)
);
alter table storage_used set (fillfactor = 50);   -- updated often: room on the page keeps these updates cheap

alter table conversations add column kept_bytes bigint not null default 0;   -- of its turns and events
alter table deliveries add column body_dropped boolean not null default false;   -- the body is empty: it was dropped
alter table attachments add column reserved bigint not null default 16777216;    -- counted until the size is known

create index deliveries_of_user on deliveries (user_id, finished_at) where finished_at is not null;
create index deliveries_bodies on deliveries (finished_at)
  where finished_at is not null and not body_dropped and state in ('dead', 'ignored', 'waiting');

-- A backup restores the counts together with what they count: `set local ocmt.restoring = 'on'`.
create function is_restoring() returns boolean language sql stable as $$
  select coalesce(current_setting('ocmt.restoring', true), '') = 'on';
$$;

-- Every account has its rows from the beginning: whoever counts only updates.

create function open_storage() returns trigger language plpgsql as $$
begin
  if is_restoring() then return null; end if;
  insert into storage_used (user_id, store)
  select new.id, store from unnest(array['conversations', 'deliveries', 'attachments', 'snapshots']) as store
  on conflict do nothing;
  return null;
end $$;

-- What a row of each store counts as: its contents and a share for the row itself.

create function turn_size(text text, answer text) returns bigint language sql immutable as $$
  select 500 + octet_length(text) + coalesce(octet_length(answer), 0);
$$;

create function delivery_size(body bytea) returns bigint language sql immutable as $$
  select 500 + octet_length(body);
$$;

create function outbox_size(text text) returns bigint language sql immutable as $$
  select 300 + octet_length(text);
$$;

-- The statements below are written out in each function: a function of one more statement would be planned anew at
-- every call, in the middle of hot paths.

create function count_conversations() returns trigger language plpgsql as $$
begin
  if is_restoring() then return null; end if;
  if tg_op = 'INSERT' then
    update storage_used set items = items + 1, bytes = bytes + new.kept_bytes
    where user_id = new.user_id and store = 'conversations';
  else
    update storage_used set items = items - 1, bytes = bytes - old.kept_bytes
    where user_id = old.user_id and store = 'conversations';
  end if;
  return null;
end $$;

-- A turn goes only with its conversation, which takes all its bytes along.
create function count_turns() returns trigger language plpgsql as $$
declare
  more bigint := 500 + octet_length(new.text) + coalesce(octet_length(new.answer), 0);
begin
  if is_restoring() then return null; end if;
  if tg_op = 'UPDATE' then
    more := more - (500 + octet_length(old.text) + coalesce(octet_length(old.answer), 0));
  end if;
  update conversations set kept_bytes = kept_bytes + more where id = new.conversation_id;
  update storage_used set bytes = bytes + more where user_id = new.user_id and store = 'conversations';
  return null;
end $$;

create function count_attachments() returns trigger language plpgsql as $$
begin
  if is_restoring() then return null; end if;
  case tg_op
    when 'INSERT' then
      update storage_used set items = items + 1, bytes = bytes + coalesce(new.size, new.reserved)
      where user_id = new.user_id and store = 'attachments';
    when 'UPDATE' then
      update storage_used set bytes = bytes + coalesce(new.size, new.reserved) - coalesce(old.size, old.reserved)
      where user_id = new.user_id and store = 'attachments';
    else
      update storage_used set items = items - 1, bytes = bytes - coalesce(old.size, old.reserved)
      where user_id = old.user_id and store = 'attachments';
  end case;
  return null;
end $$;

create function count_snapshots() returns trigger language plpgsql as $$
begin
  if is_restoring() then return null; end if;
  if tg_op = 'INSERT' then
    update storage_used set items = items + 1 where user_id = new.user_id and store = 'snapshots';
  else
    update storage_used set items = items - 1 where user_id = old.user_id and store = 'snapshots';
  end if;
  return null;
end $$;

-- Deliveries are added by the hundred: the statement that adds them counts them (channels/queries.sql). What goes is
-- counted here, once a statement.
create function count_dropped_deliveries() returns trigger language plpgsql as $$
begin
  if is_restoring() then return null; end if;
  perform from storage_used where store = 'deliveries' and user_id in (select user_id from gone)
    order by user_id for no key update;
  update storage_used s set items = s.items - g.items, bytes = s.bytes - g.bytes
  from (select user_id, count(*) as items, sum(delivery_size(body)) as bytes from gone group by user_id) g
  where s.user_id = g.user_id and s.store = 'deliveries';
  return null;
end $$;

create function count_bodies() returns trigger language plpgsql as $$
begin
  if not is_restoring() then
    update storage_used set bytes = bytes + delivery_size(new.body) - delivery_size(old.body)
    where user_id = new.user_id and store = 'deliveries';
  end if;
  return null;
end $$;

create function count_owed() returns trigger language plpgsql as $$
begin
  if not is_restoring() then
    update storage_used set bytes = bytes + outbox_size(new.text)
    where user_id = new.user_id and store = 'deliveries';
  end if;
  return null;
end $$;

create function count_dropped_owed() returns trigger language plpgsql as $$
begin
  if is_restoring() then return null; end if;
  perform from storage_used where store = 'deliveries' and user_id in (select user_id from gone)
    order by user_id for no key update;
  update storage_used s set bytes = s.bytes - g.bytes
  from (select user_id, sum(outbox_size(text)) as bytes from gone group by user_id) g
  where s.user_id = g.user_id and s.store = 'deliveries';
  return null;
end $$;

-- Every count anew from what there is; of snapshots only the number, their bytes are known by the object store.
create function recount_storage() returns void language plpgsql as $$
begin
  insert into storage_used (user_id, store)
  select u.id, store from users u,
    unnest(array['conversations', 'deliveries', 'attachments', 'snapshots']) as store
  on conflict do nothing;
  update conversations c set kept_bytes = counted.bytes
  from (
    select c.id,
      (select coalesce(sum(turn_size(t.text, t.answer)), 0) from turns t
       where t.user_id = c.user_id and t.conversation_id = c.id)
      + (select coalesce(sum(100 + octet_length(e.data::text)), 0) from events e where e.conversation_id = c.id) as bytes
    from conversations c) counted
  where counted.id = c.id and counted.bytes <> c.kept_bytes;
  update storage_used s set items = counted.items, bytes = coalesce(counted.bytes, s.bytes)
  from (
    select u.id as user_id, 'conversations' as store, count(c.id) as items, coalesce(sum(c.kept_bytes), 0) as bytes
    from users u left join conversations c on c.user_id = u.id group by u.id
    union all
    select u.id, 'deliveries', (select count(*) from deliveries d where d.user_id = u.id),
      (select coalesce(sum(delivery_size(d.body)), 0) from deliveries d where d.user_id = u.id)
      + (select coalesce(sum(outbox_size(o.text)), 0) from outbox o where o.user_id = u.id)
    from users u
    union all
    select u.id, 'attachments', count(a.id), coalesce(sum(coalesce(a.size, a.reserved)), 0)
    from users u left join attachments a on a.user_id = u.id group by u.id
    union all
    select u.id, 'snapshots', count(s.generation), null
    from users u left join snapshots s on s.user_id = u.id group by u.id) counted
  where s.user_id = counted.user_id and s.store = counted.store;
end $$;

-- At most so many rows of one owner. Arguments: the owner's column, the number, the sentence for who is refused,
-- which rows count. The lock comes first and the count is of what there is behind it, so parallel writers do not pass
-- the number together.
create function bound_rows() returns trigger language plpgsql as $$
declare
  owner uuid := (to_jsonb(new) ->> tg_argv[0])::uuid;
  found bigint;
begin
  if owner is null or is_restoring() then return null; end if;
  perform pg_advisory_xact_lock(hashtextextended('ocmt.bound ' || tg_name || owner::text, 0));
  execute 'select count(*) from ' || quote_ident(tg_table_name) || ' where ' || quote_ident(tg_argv[0])
    || ' = $1 and (' || coalesce(tg_argv[3], 'true') || ')' into found using owner;
  if found > tg_argv[1]::bigint then
    raise exception using errcode = 'OC001', message = tg_argv[2];
  end if;
  return null;
end $$;

-- What has ended is kept up to a number, the newest of it. Arguments: the owner's column, the number, which rows have
-- ended.
create function crowd_out_rows() returns trigger language plpgsql as $$
begin
  if is_restoring() then return null; end if;
  execute 'delete from ' || quote_ident(tg_table_name) || ' where id in (select id from '
    || quote_ident(tg_table_name) || ' where ' || quote_ident(tg_argv[0]) || ' = $1 and (' || tg_argv[2]
    || ') order by created_at desc, id desc offset $2)'
  using (to_jsonb(new) ->> tg_argv[0])::uuid, tg_argv[1]::bigint;
  return null;
end $$;

select recount_storage();

create trigger open_storage after insert on users for each row execute function open_storage();

create trigger count_made after insert on conversations for each row execute function count_conversations();
create trigger count_gone after delete on conversations for each row execute function count_conversations();
create trigger count_made after insert on turns for each row execute function count_turns();
create trigger count_changed after update of text, answer on turns for each row
  when (old.text is distinct from new.text or old.answer is distinct from new.answer) execute function count_turns();

create trigger count_made after insert on attachments for each row execute function count_attachments();
create trigger count_changed after update of size, reserved on attachments for each row
  when (coalesce(old.size, old.reserved) <> coalesce(new.size, new.reserved)) execute function count_attachments();
create trigger count_gone after delete on attachments for each row execute function count_attachments();

create trigger count_made after insert on snapshots for each row execute function count_snapshots();
create trigger count_gone after delete on snapshots for each row execute function count_snapshots();

create trigger count_changed after update of body on deliveries for each row
  when (octet_length(old.body) <> octet_length(new.body)) execute function count_bodies();
create trigger count_gone after delete on deliveries referencing old table as gone
  for each statement execute function count_dropped_deliveries();
create trigger count_made after insert on outbox for each row execute function count_owed();
create trigger count_gone after delete on outbox referencing old table as gone
  for each statement execute function count_dropped_owed();

create trigger bound_of_user after insert on api_keys for each row execute function bound_rows(
  'user_id', '200', 'You have too many API keys: revoke some first.', 'revoked_at is null');
create trigger crowd_out_of_user after insert on api_keys for each row
  execute function crowd_out_rows('user_id', '200', 'revoked_at is not null');
create trigger crowd_out_of_user after insert on login_sessions for each row
  execute function crowd_out_rows('user_id', '200', 'revoked_at is not null');
create trigger bound_of_user after insert on passkeys for each row execute function bound_rows(
  'user_id', '20', 'You have 20 passkeys: remove one that you do not need.');
create trigger bound_of_user after insert on oidc_accounts for each row execute function bound_rows(
  'user_id', '20', 'You have 20 accounts at providers connected: disconnect one first.');
create trigger bound_of_user after insert on backup_codes for each row execute function bound_rows(
  'user_id', '100', 'You have too many backup codes: make new ones.');
create trigger bound_of_user after insert on vault_items for each row execute function bound_rows(
  'user_id', '200', 'Your vault is full: it holds 200 items.');
create trigger bound_of_item after insert on vault_item_versions for each row execute function bound_rows(
  'user_id', '5000', 'Your vault keeps too many earlier values: delete items that you do not need.');
create trigger bound_of_user after insert on holds for each row execute function bound_rows(
  'user_id', '200', 'Too much keeps your agent awake already.');
create trigger bound_of_user after insert on channel_endpoints for each row execute function bound_rows(
  'user_id', '20', 'You have 20 channels. Disconnect one first.');
create trigger bound_of_user after insert on channel_senders for each row execute function bound_rows(
  'endpoint_id', '2000', 'This channel knows 2,000 senders: remove some of them first.');
create trigger bound_of_user after insert on group_members for each row execute function bound_rows(
  'user_id', '50', 'You are in 50 groups: leave one first.');
create trigger bound_of_group after insert on group_members for each row execute function bound_rows(
  'group_id', '500', 'This group is full: it has 500 members.');
create trigger bound_of_group after insert on group_invitations for each row execute function bound_rows(
  'group_id', '500', 'This group has many open invitations: withdraw some first.', 'decided_at is null');
create trigger crowd_out_of_group after insert on group_invitations for each row
  execute function crowd_out_rows('group_id', '500', 'decided_at is not null');
