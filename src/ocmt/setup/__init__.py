"""Set-up without prerequisites: gets whatever this machine lacks, once, and says what it does.

It runs before anything is installed, from `scripts/bootstrap`, on the machine's own Python. So it imports
the standard library and `ocmt.errors` only, and needs nothing else of the project. What it makes goes into
the clone (`.venv`, `ui/dist`) and into the user's cache folder, never anywhere else, and every piece
appears there whole or not at all.
"""
