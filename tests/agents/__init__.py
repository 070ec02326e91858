"""The command line agents from npm and PyPI under `cycles run`, as users start them: ``python -m tests.agents``."""
