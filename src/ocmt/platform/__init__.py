"""What every feature stands on: the database, secrets, objects, mail, HTTP, telemetry, time.

Knows no feature.
"""
