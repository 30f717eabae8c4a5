"""What the project promises about speed and size, measured beside peers in the same run: `make bench`.

`__main__` runs the rooms in their order: `starting` (the platform), `waking` (the agent), `turns`,
`snapshots`, `scale` (a thousand agents). The peer is the bare gateway (`bare`): the same Node, OpenClaw,
configuration and model double, without the platform; for `scale` the doubles of gateways, started without it.
"""
