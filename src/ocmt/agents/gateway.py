"""What an awake agent understands and says, for the rooms above: they know agents, not OpenClaw."""

from ocmt.openclaw.client import (
    Aborted,
    Delta,
    Failed,
    Final,
    GatewayClient,
    GatewayError,
    RunEvent,
    Status,
    Tool,
)

__all__ = [
    "Aborted",
    "Delta",
    "Failed",
    "Final",
    "GatewayClient",
    "GatewayError",
    "RunEvent",
    "Status",
    "Tool",
]
