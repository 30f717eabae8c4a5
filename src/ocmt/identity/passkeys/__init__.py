"""Passkeys (WebAuthn): both factors at once, in something that one has and that asks for its owner."""
