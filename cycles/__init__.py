"""Cycles: budget authority for AI agents. Reserve before you act, commit what it really cost."""
