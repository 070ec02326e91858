"""Fixtures for testing agents against the embedded server."""
