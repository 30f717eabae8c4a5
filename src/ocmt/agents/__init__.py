"""Agents: one per user; their state machine, how they wake and sleep, and who drives them."""
