"""Sign-in by other providers: Google, GitHub, and every OpenID Connect issuer that can be discovered."""
