"""The command line, one module a command. `app.py` knows their names; it imports one when it is called."""
