"""Channels: what other services send us becomes turns, and the answers go back to them."""
