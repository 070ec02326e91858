"""The arithmetic of `client.pool`: chunks, and from which chunk a guard is admitted. It has no clock and no lock.

A chunk is one reservation that many guards share. `Sums` says what is spent, live and free of its amount. See
`docs/pools.md`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum
from itertools import chain
from typing import Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from attrs import Factory, define, field

from cycles._core.amounts import INT64_MAX
from cycles._core.pool.sums import Sums

ChunkState: TypeAlias = Literal["open", "draining", "sealed", "confirmed", "rejected", "empty"]
ChunkEvent: TypeAlias = Literal["drain", "seal", "confirm", "reject", "discard"]

CHUNK_TRANSITIONS: Final[dict[ChunkState, dict[ChunkEvent, ChunkState]]] = {
    "open": {"drain": "draining", "seal": "sealed"},
    "draining": {"seal": "sealed"},
    "sealed": {"confirm": "confirmed", "reject": "rejected", "discard": "empty"},
    "confirmed": {},
    "rejected": {},
    "empty": {},
}
"""State, event, next state. An opening chunk is not a `Chunk` yet: it is `Allotment.opening`."""

TAKES_SPEND: Final = ("open", "draining")
SMALLEST_PART: Final = 16  # a denied chunk is halved down to this part of its size


@define(eq=False, repr=False)
class Chunk:
    """One reservation that many guards share. Its owner holds the lock of the pool for every change."""

    amount: int
    sums: Sums = field(init=False, default=Factory(lambda chunk: Sums(chunk.amount), takes_self=True))
    state: ChunkState = field(default="open", init=False)

    def drop_ahead(self) -> None:
        """Count no longer what live guards have spent: their own events have it."""
        totals = self.sums.totals
        self.sums = self.sums._replace(totals=totals.with_ahead(-totals.ahead))

    @property
    def takes_spend(self) -> bool:
        """Whether guards of this chunk can be settled in it."""
        return self.state in TAKES_SPEND

    @property
    def is_used_up(self) -> bool:
        """Whether no guard can be admitted any more, also after all live guards have ended."""
        return self.sums.totals.spent >= self.amount

    def change(self, event: ChunkEvent) -> bool:
        """Change the state; return False if the table has no row for it."""
        following = CHUNK_TRANSITIONS[self.state].get(event)
        if following is None:
            return False
        self.state = following
        return True


ChunkT = TypeVar("ChunkT", bound=Chunk)


class Move(Enum):
    """What a caller does whose estimate fits into no open chunk."""

    WAIT = "wait for the refill, or for a commit, that is in progress"
    OPEN = "open a chunk"
    DENY = "raise the last denial"
    DIRECT = "reserve directly, without the pool"


class Step(NamedTuple):
    """The move, and for OPEN the amount of the chunk to open."""

    move: Move
    amount: int = 0


class Allotment(Generic[ChunkT]):
    """The chunks of one scope set.

    Args:
        max_held: The most that may be held at the server.
        chunk: The amount of one chunk.
        is_fixed: Whether the caller has chosen it. Else it may be larger, so that it consists of whole estimates.
        limit: The most that the pool may spend.
    """

    def __init__(self, max_held: int, chunk: int, *, is_fixed: bool = False, limit: int | None = None) -> None:
        self.max_held = max_held
        self.chunk = chunk
        self.is_fixed = is_fixed
        self.limit: int = INT64_MAX if limit is None else limit
        self.left: int = INT64_MAX  # of the budget, if the response to the latest chunk has reported it
        self.latest: int = 0  # the estimate of the guard that half used a chunk
        self.size: int = chunk  # of the next chunk: halved by denials
        self.open: list[ChunkT] = []  # oldest first
        self.held: int = 0  # of all chunks that are not confirmed, the opening one included
        self.opening: int = 0  # amount of the chunk that is being reserved
        self.sending: set[ChunkT] = set()  # chunks whose commit or release is in its first attempt
        self.denied_until_ms: float = 0.0
        self.denied: int = 0  # the least amount that was denied; less may still fit into the budget

    @property
    def _smallest(self) -> int:
        """The least that is worth a chunk of its own, if no caller waits for it."""
        return -(-self.chunk // SMALLEST_PART)

    def too_small(self, estimate: int) -> list[ChunkT]:
        """Return the open chunks that can never admit this estimate, because of what is spent."""
        return [chunk for chunk in self.open if chunk.amount - chunk.sums.totals.spent < estimate]

    def _next_size(self, estimates: Iterable[int]) -> int:
        """Return the amount of the next chunk for guards with these estimates, later ones like the last of them."""
        amount = latest = 0
        if self.is_fixed or min(self.limit, self.left + self.held) > self.max_held:
            return self.size
        # The pool may need all that it may hold. What is too small for a guard would be lost until live guards end.
        for latest in estimates:
            if amount >= self.size:
                return amount
            amount += latest
        return max(self.size, amount, amount - (amount - self.size) // max(1, latest) * latest)

    def next_step(self, estimate: int, now_ms: float, behind: Iterable[int] = ()) -> Step:
        """Return what to do for a guard that fits nowhere, before others. Nothing here waits for live guards."""
        # It would use up a whole chunk alone, so sharing saves nothing.
        if estimate > self.chunk:
            return Step(Move.DIRECT)
        # One at a time: the waiting guards of one burst fit into one chunk, and would open one each.
        if self.opening:
            return Step(Move.WAIT)
        size = max(self._next_size(chain((estimate,), behind)), estimate)
        if now_ms < self.denied_until_ms:
            if max(1, estimate) >= self.denied:
                return Step(Move.DENY)
            size = min(size, self.denied - 1)
        # The last chunk takes the rest, also of the budget: half of a chunk that is denied may leave a part of it.
        amount = min(size, self.max_held - self.held, self.left if self.left >= estimate else size)
        if amount >= max(1, estimate):
            return Step(Move.OPEN, amount)
        # A commit in progress gives its amount back within a request. Live guards may last for ever.
        return Step(Move.WAIT if self.sending else Move.DIRECT)

    def ahead(self, now_ms: float) -> int:
        """Return the amount of a chunk to open ahead of need, or 0."""
        last = self.open[-1] if self.open else None
        if self.opening or now_ms < self.denied_until_ms or last is None or 2 * last.sums.free > last.amount:
            return 0
        amount = min(self._next_size((self.latest,)), self.max_held - self.held, self.left)
        return amount if amount >= self._smallest else 0

    def begin(self, amount: int) -> None:
        """Count a chunk that is being reserved."""
        self.opening = amount
        self.held += amount

    def smaller(self, estimates: Collection[int], denied_until_ms: float) -> int | None:
        """Return the amount to request after the opening chunk was denied, or None if none of these guards fits.

        Args:
            estimates: Those of the guards that wait for the chunk.
            denied_until_ms: How long the denial is the result of guards with as large estimates.
        """
        # Halving finds what is left of the budget in a few requests; below a sixteenth a chunk saves too little.
        amount = max(self.opening // 2, self._smallest, *estimates)
        # The last request is for one guard alone. Then no guard is denied that the budget can pay for.
        if amount >= self.opening and (amount := max(1, min(estimates, default=amount))) >= self.opening:
            return None
        if estimates:
            self.denied, self.denied_until_ms = self.opening, denied_until_ms
        self.held -= self.opening - amount
        self.size = max(amount, self._smallest)
        self.opening = amount
        return amount

    def failed(self, *, denied: int = 0, denied_until_ms: float = 0.0) -> None:
        """Count the opening chunk no longer. A denial for lack of budget has the amount that was denied."""
        self.held -= self.opening
        self.opening = 0
        if denied_until_ms:
            self.denied, self.denied_until_ms = denied, denied_until_ms

    def opened(self, chunk: ChunkT, left: int = INT64_MAX) -> None:
        """Admit guards into the chunk that was opening. The next one has twice its size, up to the full size."""
        self.opening = 0
        self.left = left
        if chunk.amount >= self.denied:
            self.denied_until_ms = 0.0
        # After denials the size grows again by doubling, so that a budget that was refilled is used soon.
        self.size = min(self.chunk, max(self.size, chunk.amount) * 2)
        self.open.append(chunk)

    def drained(self, chunk: ChunkT) -> None:
        """Admit no more guards into a chunk."""
        chunk.change("drain")
        if chunk.state == "draining" and chunk in self.open:
            self.open.remove(chunk)

    def sealed(self, chunk: ChunkT) -> None:
        """Take no more spend in a chunk, which is sent now. A second call changes nothing."""
        if chunk.state in TAKES_SPEND:
            self.sending.add(chunk)
            chunk.change("seal")
        if chunk in self.open:
            self.open.remove(chunk)

    def sent(self, chunk: ChunkT) -> None:
        """Note that the first attempt to end a sealed chunk is over."""
        self.sending.discard(chunk)

    def ended(self, chunk: ChunkT, event: ChunkEvent) -> int:
        """Hold the amount of a sealed chunk no longer. Return how much of it the budget has again."""
        if not chunk.change(event):
            return 0
        self.held -= chunk.amount
        returned = 0 if event == "reject" else chunk.amount - chunk.sums.totals.spent
        self.left += returned
        return returned
