"""Sign-in at the agents' own host name (OCMT_AGENT_URL): a ticket, then a cookie for the gateway alone."""
