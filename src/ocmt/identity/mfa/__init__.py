"""The second factor by codes: one-time codes of an authenticator app (TOTP), and backup codes on paper."""
