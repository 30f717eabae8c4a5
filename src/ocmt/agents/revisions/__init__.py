"""Which OpenClaw each agent runs, and how it gets from one to the next without losing anything."""
