"""OpenClaw, as the platform speaks to it: its gateway's protocol, its history, its configuration."""
