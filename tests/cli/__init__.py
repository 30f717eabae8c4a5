"""Tests of ocmt.cli."""
