"""The audit log: what was done by whom, in a chain in which a removed or changed row is found."""
