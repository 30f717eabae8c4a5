"""One attempt a file. Each is sent into a sandbox as text and run there in the agent's place, with Python's
standard library and `tries` alone; `attempt` returns what came of each way that it tried: `REACHED …`, or the
name of the error that stopped it.
"""
