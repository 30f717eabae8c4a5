"""Tests of ocmt.identity."""
