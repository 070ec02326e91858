"""Shares: parts of a run's budget with a separate secret and limit, for the agents to which a program delegates.

The secret of a request selects its share, and no header changes it. The proxy keeps the limit of each share as a
`cycles.limit`: a request runs in the context of its share, where the limits of the run, of the parents and of the share
apply. Beside that, the calls have the subject ``agent=NAME``, so that the ledger has a scope for the share too.
All functions here run in the event loop of the proxy.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context, ContextVar, copy_context
from fractions import Fraction
from typing import Any, Final

from attrs import define, field

import cycles
from cycles._core.amounts import Amount
from cycles._errors import InvalidRequestError
from cycles._flows.run_limit import RunLimit
from cycles.proxy._shown import shown

MOST_SHARES: Final = 10_000
MOST_PATH: Final = 256
NAME: Final = re.compile(r"[a-z0-9_.-]{1,64}")
PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")


class ShareError(Exception):
    """A share that cannot be made; `status` is that of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@define(eq=False)
class Share:
    """One share.

    Attributes:
        path: Its name behind those of its parents, like ``parent/child``.
        name: Its name.
        key: Its secret.
        asked: The limit as the request wrote it.
        limit: What it may spend.
        parent: The share that made it; None: the run.
        context: The context of its requests, with all limits around it.
        calls: Its calls, with those of the shares below it; so also the next two.
        denied: Calls that were denied.
        spent: What its calls have spent, in the unit of its limit.
    """

    path: str
    name: str
    key: str = field(repr=False)
    asked: str
    limit: RunLimit
    parent: Share | None
    context: Context = field(repr=False)
    calls: int = 0
    denied: int = 0
    spent: int = 0

    def with_parents(self) -> Iterator[Share]:
        """Yield this share and those around it."""
        share: Share | None = self
        while share is not None:
            yield share
            share = share.parent

    def document(self) -> dict[str, Any]:
        """Return what it has used, as JSON."""
        return {
            "calls": self.calls,
            "denied": self.denied,
            "spent": Amount(self.limit.amount.unit, self.spent).to_dict(),
            "limit": self.limit.amount.to_dict(),
        }

    def subject(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the subject of its calls, over that of the run."""
        dimensions = {**given.get("dimensions", {}), "agent_path": self.path}
        return {**given, "agent": self.name, "dimensions": dimensions}


_current: Final[ContextVar[Share | None]] = ContextVar("cycles_share", default=None)


def current_share() -> Share | None:
    """Return the share to which this code's call belongs."""
    return _current.get()


class Shares:
    """The shares of a run.

    Args:
        left: Returns what is left of the run; None: it has no limit that the proxy knows.
        opened: Called with each new share, to give it a scope of the ledger.
        unit: The unit of the run.
    """

    def __init__(self, left: Callable[[], Amount | None], opened: Callable[[Share], None], unit: str) -> None:
        self._left = left
        self._opened = opened
        self._unit = unit
        self._by_path: dict[str, Share] = {}
        self._by_key: dict[bytes, Share] = {}

    def __bool__(self) -> bool:
        return bool(self._by_path)

    def of_key(self, key: str) -> Share | None:
        """Return the share of a secret. Hashes are compared, so that the time says nothing about the secret."""
        return self._by_key.get(_digest(key)) if self._by_key else None

    def document(self) -> dict[str, Any]:
        """Return all shares as JSON, the one with the highest cost first."""
        return {share.path: share.document() for share in self._by_cost()}

    def lines(self) -> list[str]:
        """Return a line for each share, the one with the highest cost first."""
        return [share_line(share.path, share.document()) for share in self._by_cost()]

    def _by_cost(self) -> list[Share]:
        return sorted(self._by_path.values(), key=lambda share: (-share.spent, share.path))

    def left(self, parent: Share | None) -> Amount | None:
        """Return what the innermost limit has left; None if there is none."""
        return self._left() if parent is None else parent.limit.remaining

    def make(self, parent: Share | None, raw: bytes) -> Share:
        """Return the share that a request names; the same one if it was made before.

        Raises:
            ShareError: 400 for a wrong request, 409 if the share has another limit.
        """
        name, asked = _request(raw)
        path = name if parent is None else f"{parent.path}/{name}"
        known = self._by_path.get(path)
        if known is not None:
            if not self._same(known, asked):
                limit = (
                    known.asked if PERCENT.fullmatch(known.asked) else shown(self._unit, known.limit.amount.amount, 2)
                )
                raise ShareError(409, f"the share {path} has the limit {limit}: use it, or another name")
            return known
        if len(path) > MOST_PATH:
            raise ShareError(400, f"the path {path!r:.80} has more than {MOST_PATH} characters: use shorter names")
        if len(self._by_path) >= MOST_SHARES:
            raise ShareError(400, f"the run has {MOST_SHARES} shares, which is the most: use one that exists")
        amount = self._amount(parent, asked)
        context = copy_context() if parent is None else parent.context.copy()
        share = Share(path, name, secrets.token_urlsafe(18), asked, cycles.limit(amount), parent, context)
        context.run(share.limit.__enter__)
        context.run(_current.set, share)
        self._opened(share)
        self._by_path[path] = share
        self._by_key[_digest(share.key)] = share
        return share

    def _amount(self, parent: Share | None, asked: str) -> Amount:
        percent = PERCENT.fullmatch(asked)
        if percent is None:
            return self._parsed(asked)
        if not 0 < Fraction(percent[1]) <= 100:
            raise ShareError(400, f"limit {asked!r:.80} is not a percentage from 0 to 100: write it like 20%")
        left = self.left(parent)
        if left is None:
            raise ShareError(400, f"limit {asked} is a part of nothing: the run has no --budget; write it like 1USD")
        return Amount(left.unit, int(left.amount * Fraction(percent[1]) / 100))

    def _parsed(self, asked: str) -> Amount:
        example = "1USD" if self._unit == "USD_MICROCENTS" else f"1000{self._unit}"
        try:
            amount = Amount.parse(asked)
        except InvalidRequestError as error:
            what, _, _ = str(error).partition("; write it like")
            raise ShareError(400, f"limit: {what}; write it like {example} or 20%") from None
        if amount.unit != self._unit:
            word = "USD" if self._unit == "USD_MICROCENTS" else self._unit
            raise ShareError(400, f"limit {asked!r:.80} is not in {word}; write it like {example}")
        if amount.amount <= 0:
            raise ShareError(400, f"limit {asked!r:.80} is not above zero; write it like {example}")
        return amount

    def _same(self, share: Share, asked: str) -> bool:
        if PERCENT.fullmatch(asked) or PERCENT.fullmatch(share.asked):
            return asked == share.asked
        return self._parsed(asked) == share.limit.amount


def share_line(path: str, used: Mapping[str, Any]) -> str:
    """Return what a share has used, as one line."""
    calls = f"{used['calls']} {'call' if used['calls'] == 1 else 'calls'}"
    spent, limit = shown(**used["spent"]), shown(**used["limit"], decimals=2)
    return f"share {path}: {calls}, {spent} of {limit} spent, {used['denied']} denied"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _request(raw: bytes) -> tuple[str, str]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ShareError(400, 'the body is not a JSON object; send {"name": "researcher", "limit": "1USD"}')
    name, asked = body.get("name"), body.get("limit")
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise ShareError(400, f"name {name!r:.80} is not 1 to 64 characters of a-z, 0-9, _, . and -")
    if not isinstance(asked, str):
        raise ShareError(400, f"limit {asked!r:.80} is not an amount; write it like 1USD or 20%")
    return name, re.sub(r"\s+%$", "%", asked.strip())
