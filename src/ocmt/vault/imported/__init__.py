"""Vaults of the old production: opaque until their user unlocks them by their old password or their twelve
words."""
