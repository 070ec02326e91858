"""Generate a client package from a protocol document: read, prepare, generate with edited templates, verify, swap.

No rule names a schema or a path of today's protocol; every rule looks at the shape of a document. Each error is a
`GenerationError` that says what to do. `docs/regenerating.md` explains the steps.
"""

from __future__ import annotations


class GenerationError(Exception):
    """The document cannot become a sound client; the message names the place and what to change."""
