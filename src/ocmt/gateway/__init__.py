"""The way of a user's own programs to their agent's gateway: OpenClaw's protocol, passed on as it is."""
