"""Backup: the database, the secrets and the objects of one moment in one encrypted, verified file.

It knows the platform and no feature: every table, every secret, every object. What a restored installation
must forget of the machine that it comes from is in `queries.sql`.
"""
