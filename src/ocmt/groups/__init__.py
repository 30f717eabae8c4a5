"""Groups of users: invited by consent, with a provider's key that their members' agents may use."""
