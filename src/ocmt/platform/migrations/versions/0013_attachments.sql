-- Files that are sent with a message. Their contents are objects, users/{user_id}/attachments/{id}; the message's row
-- has their names, too (turns.attachments).
create table attachments (
  id          uuid primary key,
  user_id     uuid not null references users on delete cascade,
  turn_id     uuid references turns on delete set null,
  name        text not null,
  media_type  text not null,
  size        bigint,                             -- null: its content is on its way
  created_at  timestamptz not null,
  sent_at     timestamptz                         -- null: no message has it yet. Sent and without a turn: to be removed
);
create index attachments_user on attachments (user_id);
create index attachments_turn on attachments (turn_id);
create index attachments_loose on attachments (created_at) where turn_id is null;
