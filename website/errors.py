"""The error of the build."""


class BuildError(Exception):
    """The site cannot be built. The message says what to change."""
