"""Doubles that ship with the package, kept honest by the contract tests that also run on the real parts."""
