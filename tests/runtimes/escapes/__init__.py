"""Agents that try to get out: small programs run in the agent's place, and what is promised about each."""
