"""File work for event loops: the thread that does it, and how one loop uses it."""
