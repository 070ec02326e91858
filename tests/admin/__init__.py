"""Tests of `cycles.admin`."""
