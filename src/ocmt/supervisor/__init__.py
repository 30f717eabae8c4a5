"""Runs beside OpenClaw, inside the sandbox: standard library only, imports nothing of ocmt."""
