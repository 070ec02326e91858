"""Verify evidence that a server signed: its structure, its signature and its keys. See `docs/evidence.md`."""
