alter table plans add column max_awake interval;   -- null: as the installation's settings say
