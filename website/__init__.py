"""Build the documentation site from `docs/`, the docstrings of `cycles` and the output of commands."""
