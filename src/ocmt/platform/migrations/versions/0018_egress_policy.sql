-- The lease under which the agent's broker token was made: with any other lease the token is void.
alter table agents add column broker_token_lease bigint;

-- Who decides whether agents of this plan reach the internet; null: as the installation's setting says.
-- Not called "egress": programs from before join plans with agents, which have a column of that name.
alter table plans add column egress_policy text check (egress_policy in ('off', 'opt-in', 'on'));

-- Bytes that an agent has exchanged with the internet, for each day (UTC).
create table egress_days (
    user_id uuid not null references users (id) on delete cascade,
    day date not null,
    bytes bigint not null default 0,
    primary key (user_id, day)
);
