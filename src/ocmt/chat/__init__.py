"""Chat: conversations, durable turns, and the event streams that browsers follow."""
