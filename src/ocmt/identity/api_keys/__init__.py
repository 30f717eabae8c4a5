"""API keys: how a user's own programs show who they are, for as long and as much as the user says."""
