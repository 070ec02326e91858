"""How `openapi.yaml` becomes `cycles_client`: read, prepare, generate with edited templates, verify, swap.

Nothing in here names a schema or a path of today's protocol; every rule is about the shape of a document. Errors are
`GenerationError` and say what to do. The steps, and the reason for each, are told in `docs/regenerating.md`.
"""

from __future__ import annotations


class GenerationError(Exception):
    """The document cannot become a sound client; the message names the place and the way out."""
