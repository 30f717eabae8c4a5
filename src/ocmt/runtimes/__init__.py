"""Where agents run: the port `AgentRuntime` (`base.py`) and its adapters."""
