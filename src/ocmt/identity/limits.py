"""How often the entrance may be knocked at, by whom: all of it in one place. Counted by
`platform/rates.py`."""

from __future__ import annotations

from datetime import timedelta

from ocmt.platform.rate import Rate

_QUARTER = timedelta(minutes=15)

LINKS_TO = Rate("links to", count=5, period=_QUARTER, burst=5)
"""Sign-in links to one mail address. What is beyond is withheld without a word: the asker learns nothing."""
LINKS_TO_USERS = Rate("links to all users", count=1000, period=_QUARTER, burst=1000)
LINKS_TO_STRANGERS = Rate("links to all strangers", count=1000, period=_QUARTER, burst=1000)
"""Two purses, so that a flood of made-up addresses fills no table and yet locks no user out."""
KNOCKS_FROM = Rate("knocks from", count=120, period=_QUARTER, burst=60)
"""Requests to sign in (links, codes, tokens) from one network address: an office behind one has room."""
OIDC_STARTS_FROM = Rate("oidc.start", count=60, period=timedelta(minutes=1), burst=60)
"""Sign-ins begun at a provider from one network address: many people may share it."""
WRITES_OF = Rate("writes of", count=600, period=timedelta(minutes=1), burst=300)
"""Changes of one account through /api/v1."""
