-- name: find_tables
-- Every table of the schema but Alembic's, with the statement that copies it out. A partitioned table holds its
-- parts' rows; generated columns make themselves.
select c.relname as name,
       array_agg(a.attname::text order by a.attnum) as columns,
       format('select %s from %I', string_agg(quote_ident(a.attname), ', ' order by a.attnum), c.relname) as statement
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and c.relname <> 'alembic_version'
group by c.relname
order by c.relname;

-- name: find_references
-- Which table's rows point to which other table's.
select distinct source.relname as source, target.relname as target
from pg_constraint k
join pg_class source on source.oid = k.conrelid
join pg_class target on target.oid = k.confrelid
where k.contype = 'f' and k.connamespace = current_schema()::regnamespace and k.conrelid <> k.confrelid;

-- name: find_sequences
-- Those that have given a number, identity columns' included. They know no snapshot: what they say is late or right.
select sequencename as name, last_value from pg_sequences
where schemaname = current_schema() and last_value is not null
order by sequencename;

-- name: set_sequence$
select setval(format('%I', :name::text)::regclass, :last_value);

-- name: needs_secrets$
-- Whether a row can be read only with one of the secrets.
select exists (select from vault_keys);

-- name: has_channels$
-- Whether this schema has channels at all: an older one has not.
select to_regclass('channel_endpoints') is not null;

-- name: channels_need_secrets$
select exists (select from channel_endpoints);

-- name: find_schema^
-- The schema's name, quoted, whether anything is in it, and whether our migrations made that.
select quote_ident(current_schema()) as name,
       exists (select from pg_class where relnamespace = current_schema()::regnamespace) as is_used,
       (select count(*) = 4 from pg_class where relnamespace = current_schema()::regnamespace and relkind = 'r'
        and relname in ('alembic_version', 'users', 'agents', 'vault_keys')) as is_ours;

-- name: has_users$
select exists (select from users);

-- name: count_others$
-- Programs of ours that are connected to this database beside this connection.
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'ocmt' and pid <> pg_backend_pid();

-- name: forget_agents!
-- Nothing runs on the restored machine yet. Whoever held a lease has lost it, and may write nothing any more.
update agents
set state = 'stopped', desired = 'stopped', since = now(), progress = null, error = null, failures = 0,
    retry_at = null, runtime_state = '{}', restart_asked = false,
    lease_owner = null, lease_expires_at = null, lease_token = lease_token + 1;

-- name: forget_holds!
-- Sockets, runs and deliveries ended with the machine that they were on; what a person asked for stays.
delete from holds where reason <> 'operator';

-- name: forget_transcripts!
-- Those in the object store may be of a later moment than the rows: they are all written again.
update conversations set written_seq = 0;

-- name: conversation_exists$
select exists (select from conversations where id = :id);

-- name: renew_installation!
-- A restored copy is an installation of its own.
update installation set id = gen_random_uuid(), marked = false;

-- name: end_sessions!
-- Sessions that were ended or stolen since the backup are not to be alive again.
update login_sessions set revoked_at = now() where revoked_at is null;

-- name: end_tokens!
update users set tokens_valid_from = now();

-- name: forget_half_ways!
-- Links, challenges and attempts to sign in are of minutes that are over.
with links as (delete from sign_in_links), challenges as (delete from sign_in_challenges),
     passkeys as (delete from passkey_challenges)
delete from oidc_attempts;

-- name: find_revocations^
-- What the installation that is replaced knows to be over.
select array(select id from api_keys where revoked_at is not null) as keys,
       array(select id from users where status = 'suspended') as suspended,
       array(select user_id from account_deletions) as deleted;

-- name: keep_revoked!
update api_keys set revoked_at = now() where id = any(:keys::uuid[]) and revoked_at is null;

-- name: keep_suspended!
update users set status = 'suspended' where id = any(:suspended::uuid[]) and status in ('active', 'pending');

-- name: keep_deleted!
-- Who was deleted is deleted again, with what the backup has of them.
with gone as (
  update users set status = 'deleting' where id = any(:deleted::uuid[]) returning id)
insert into account_deletions (id, user_id, asked_at)
select gen_random_uuid(), id, now() from gone
on conflict (user_id) do update set finished_at = null;
