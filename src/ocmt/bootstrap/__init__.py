"""The composition root: settings → platform → features → services. The only place that knows every room.

`platform` opens what every feature stands on, `features` and `agent_features` wire what both services use,
`management` and `orchestrator` wire one service each, and `all_in_one` runs both. A process imports only what
it runs.
"""
