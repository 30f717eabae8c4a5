"""Who someone is: users, sign-in links, login sessions, and who may enter at all.

Other rooms get a `Principal` (platform/http.py) and ask no further. This room knows nothing of agents.
"""
