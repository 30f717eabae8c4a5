-- From each hello and resume until it is asked on its way to sleep.
alter table agents add column schedule_unread boolean not null default false;
update agents set schedule_unread = true where state not in ('stopped', 'paused');
