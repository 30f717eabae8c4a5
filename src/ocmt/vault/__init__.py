"""Secrets of users, encrypted under a key of their own: put, used, deleted; never shown again.

Only ciphertext reaches the database. The data keys are wrapped under the master key of the secret store.
This room knows nothing of what an item is used for.
"""
