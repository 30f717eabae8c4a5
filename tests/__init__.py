"""Tests mirror the rooms of `src/ocmt`. Packages, because test modules of different rooms share names."""
