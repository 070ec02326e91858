"""What a framework uses of a model whose client is unknown; `_reported.py` has the classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cycles import Amount


class ReportedCall(Protocol):
    """One call of a model whose client is unknown."""

    def begin(self) -> dict[str, int]:
        """Reserve. Returns the output limit to set, by the name ``max_tokens``; empty if none is lowered.

        Raises:
            CyclesError: as `Cycles.reserve` does; nothing was reserved.
        """
        ...

    async def abegin(self) -> dict[str, int]:
        """As `begin`, for a coroutine."""
        ...

    def inside(self) -> AbstractContextManager[None]:
        """Return the block in which the model runs. Enter it for each step of a stream, never across a ``yield``."""
        ...

    def report(
        self,
        texts: Iterable[str],
        counts: Mapping[str, int],
        model: str | None,
        context: Mapping[str, str],
        *,
        complete: bool,
    ) -> None:
        """Read a response, or what a stream has made and reported since the last report.

        Args:
            texts: What the model has written.
            counts: Totals of the response so far.
            model: The model that responded.
            context: What selects its price.
            complete: Whether the counts are final.
        """

    def finish(self, raised: BaseException | None = None) -> None:
        """Settle the call; `raised` is why it has no complete response. Raises nothing that a server can cause."""

    async def afinish(self, raised: BaseException | None = None) -> None:
        """As `finish`, for a coroutine."""


class ReportedModel(Protocol):
    """The settings of one guarded model of a framework."""

    def call(self, body: Mapping[str, Any], *, stream: bool, url: str) -> ReportedCall | None:
        """Return a call with its estimate; None if it passes: it is made inside of a call of the same model.

        Args:
            body: ``model``, ``messages``, and ``max_tokens`` if the output is limited.
            stream: Whether the response is a stream.
            url: The address of the model, or an empty string.

        Raises:
            UnknownModelError: if the price book does not know the model.
            InvalidRequestError: if a callable returns no amount.
        """
        ...

    def bound(self, body: Mapping[str, Any], *, embeds: bool) -> Amount:
        """Return what a request may cost at most.

        Args:
            body: As for `call`.
            embeds: Whether it makes embeddings, and no text.

        Raises:
            UnknownModelError: if the price book does not know the model.
        """
        ...
