"""What the guards of one chunk used together, for the metrics and the metadata of the chunk's commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cycles._core.pool_log import summed_metrics

ACTIONS: Final = 20  # of one commit: the biggest ones
METADATA_BYTES: Final = 4_096
_MIXED: Final = object()


class ChunkTotals:
    """Sums over the guards of one chunk."""

    __slots__ = (
        "actions",
        "errors",
        "first_ms",
        "last_ms",
        "latency_ms",
        "model",
        "released",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self) -> None:
        self.released: int = 0
        self.errors: int = 0
        self.latency_ms: int = 0
        self.tokens_in: int = 0
        self.tokens_out: int = 0
        self.model: Any = None  # that of all guards; `_MIXED` if they differ
        self.actions: dict[str, list[int]] = {}
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def count_model(self, model: str) -> None:
        """Note the model of one guard."""
        if self.model is None:
            self.model = model
        elif self.model != model:
            self.model = _MIXED

    def metrics(self, calls: int) -> dict[str, Any]:
        """Return the metrics of the commit."""
        model = None if self.model is _MIXED else self.model
        return summed_metrics(
            calls, self.released, self.errors, self.latency_ms, self.tokens_in, self.tokens_out, model
        )

    def metadata(self, calls: int, of_chunk: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of the commit: that of the chunk and the biggest actions, as many as fit into 4 KiB."""
        biggest = sorted(self.actions.items(), key=lambda item: -item[1][1])[:ACTIONS]
        sums = {"pool_calls": calls, "first_ms": self.first_ms, "last_ms": self.last_ms}
        metadata = {**of_chunk, **{name: value for name, value in sums.items() if value is not None}}
        while biggest:
            metadata["actions"] = dict(biggest)
            if len(json.dumps(metadata)) <= METADATA_BYTES:
                break
            biggest.pop()
            del metadata["actions"]
        return metadata
