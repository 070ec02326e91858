"""What users see is typed: these files are read by mypy and pyright (``make check``) and never run.

A line marked ``type: ignore`` must be wrong for mypy; it would complain about an ignore that is not needed.
"""
