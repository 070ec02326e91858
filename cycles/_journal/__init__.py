"""The journal: unresolved settlements, saved so that they survive the process."""
