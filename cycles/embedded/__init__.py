"""A Cycles server inside your process or beside it, for development and tests."""
