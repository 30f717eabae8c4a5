-- name: lock_revisions!
-- Reading goes on; of two who number or judge all rows, one waits.
lock table revisions in share row exclusive mode;

-- name: list_revisions
select number, image, share, created_at, withdrawn, config from revisions order by number;

-- name: count_revisions
-- Per revision: the agents that run it, and how its trials went.
select r.number,
       (select count(*) from agents a where a.revision = r.number) as agents,
       (select count(*) from agents a where a.revision_pin = r.number) as pinned,
       count(t.user_id) filter (where t.outcome is not null) as tried,
       count(t.user_id) filter (where t.outcome = 'refused') as failed,
       (array_agg(t.reason order by t.at desc) filter (where t.outcome = 'refused'))[1] as reason
from revisions r left join revision_trials t on t.revision = r.number
group by r.number;

-- name: add_revision!
insert into revisions (number, image, share, config, created_at)
values (:number, :image, :share, :config, :created_at);

-- name: set_share$
update revisions set share = :share where number = :number and not withdrawn returning number;

-- name: withdraw_revision$
update revisions set withdrawn = true where number = :number returning number;

-- name: drop_refusals
-- A trial that is open stays so: its files are still to be put back.
update revision_trials set outcome = null, reason = null, attempt = 0
where revision = :number and outcome = 'refused' and (:user_id::uuid is null or user_id = :user_id::uuid)
returning user_id;

-- name: set_pin!
update agents set revision_pin = :number where user_id = :user_id;

-- name: find_standing^
-- For the lease's holder only.
select a.revision, a.revision_pin,
       array(select t.revision from revision_trials t
             where t.user_id = a.user_id and t.outcome = 'refused') as refused,
       t.revision as trial, t.generation, t.attempt, t.outcome
from agents a left join revision_trials t on t.user_id = a.user_id and t.open
where a.user_id = :user_id and a.lease_token = :lease_token;

-- name: open_trial$
-- One that ended without a verdict is counted on; a new verdict takes the place of an old one.
insert into revision_trials as t (user_id, revision, generation, open, at)
select a.user_id, :revision, :generation, true, :now
from agents a where a.user_id = :user_id and a.lease_token = :lease_token
on conflict (user_id, revision) do update
set generation = excluded.generation, open = true, at = excluded.at, reason = null, outcome = null,
    attempt = case when t.outcome is null then t.attempt + 1 else 1 end
returning user_id;

-- name: refuse_trial$
-- It stays open: its files are still to be put back.
update revision_trials t set outcome = 'refused', reason = :reason, at = :now
from agents a
where t.user_id = :user_id and t.open and a.user_id = t.user_id and a.lease_token = :lease_token
returning t.user_id;

-- name: close_trial$
update revision_trials t set open = false
from agents a
where t.user_id = :user_id and t.open and a.user_id = t.user_id and a.lease_token = :lease_token
returning t.user_id;

-- name: passed_by_agent$
update agents set revision = :revision, image = :image
where user_id = :user_id and lease_token = :lease_token
returning user_id;

-- name: pass_trial!
insert into revision_trials (user_id, revision, open, outcome, at)
values (:user_id, :revision, false, 'passed', :now)
on conflict (user_id, revision) do update
set open = false, outcome = 'passed', reason = null, attempt = 1, at = excluded.at;
