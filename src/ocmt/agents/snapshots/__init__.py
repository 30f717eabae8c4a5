"""Snapshots: an agent's files as generations that can be had back; taken, verified, kept, restored."""
