"""The way from an agent to a model: adds the provider's key, meters the call, and refuses what is too much.

Agents know only their own token. The key is added here and never reaches the agent, a log or
the ledger. Bytes stream through untouched and unbuffered; without any key the built-in demo model answers.
"""
