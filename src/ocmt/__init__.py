"""OCMT, OpenClaw Multi-Tenant: a private OpenClaw agent for every user of an organisation."""

__version__ = "0.1.0"
