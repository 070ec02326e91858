"""What a model used: `Metrics`, stated once with a settlement, and `Usage`, a guard's running account for streams.

`Usage` checks counts when they are added. `Metrics` takes any value, because it is often made inside the call of
`commit`, where an error would release the budget of money that is spent. `settlement_metrics` makes the wire form and
never raises: it leaves out what the protocol does not allow.

A signal handler may add to the usage that its own thread is changing. So the lock is re-entrant, and a value is read
and stored without a call in between, because Python runs handlers after calls only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar, Unpack

from attrs import define, field, frozen

from cycles._core.amounts import INT64_MAX
from cycles._core.values.counts import PART_OF, Counts, clip_parts
from cycles._core.values.json_values import clean_object, salvage_json
from cycles._errors import InvalidRequestError
from cycles._version import public, readable

T = TypeVar("T")

MAX_MODEL_VERSION: Final = 128
# The protocol's metrics have no members for these counts; they travel in `custom`.
CUSTOM_COUNTS: Final = tuple(name for name in PART_OF if name not in ("tokens_input", "tokens_output"))


def checked_count(value: Any, where: str) -> int:
    """Return a count of tokens or milliseconds.

    Raises:
        InvalidRequestError: if it is no integer from 0 to 2**63 - 1.
    """
    # A bool is an int in Python; as a count it is a mistake of the caller.
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(f"{where} must be an integer, got {value!r:.80}")
    if not 0 <= value <= INT64_MAX:
        raise InvalidRequestError(f"{where} must be 0 to 2**63 - 1, got {value}")
    return int(value)


def checked_counts(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts that are not zero.

    Raises:
        InvalidRequestError: for a negative or fractional count.
        TypeError: for a name that is no count.
    """
    for name in counts:
        if name not in PART_OF:
            raise TypeError(f"usage has no count {name!r:.80}: the counts are {', '.join(PART_OF)}")
    return {name: checked_count(n, f"usage.{name}") for name, n in counts.items() if n != 0}


def checked_text(value: Any, where: str) -> str:
    """Return a string unchanged.

    Raises:
        InvalidRequestError: it is no string.
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"{where} must be a str, got {value!r:.80}")
    return value


def checked_model(value: Any, where: str = "model_version") -> str:
    """A model's name and version.

    Raises:
        InvalidRequestError: if it is not text of at most 128 characters.
    """
    text = checked_text(value, where)
    if len(text) > MAX_MODEL_VERSION:
        raise InvalidRequestError(f"{where} must have at most {MAX_MODEL_VERSION} characters, got {len(text)}")
    return text


_MEMBERS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "tokens_input": checked_count,
    "tokens_output": checked_count,
    "latency_ms": checked_count,
    "model_version": checked_model,
    "custom": clean_object,
}
"""The check of each member of `Metrics`."""


def _copied(custom: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a copy that the caller cannot change later, or a value that is no JSON object unchanged."""
    try:
        return None if custom is None else clean_object(custom, "metrics.custom")
    except Exception:  # also what a mapping of the caller raises; the settlement reports what cannot be sent
        return custom


@frozen(kw_only=True)
class Metrics:
    """What an action used, beside what it cost. Members left out are not sent.

    A value that the protocol does not allow is omitted from the settlement, and the event `ValuesOmitted` names it.

    Attributes:
        tokens_input: Tokens read by the model, >= 0.
        tokens_output: Tokens written by the model, >= 0.
        latency_ms: How long the action took, in milliseconds, >= 0.
        model_version: The model that responded, at most 128 characters.
        custom: Anything more, as plain JSON values; copied when given.
    """

    tokens_input: int | None = None
    tokens_output: int | None = None
    latency_ms: int | None = None
    model_version: str | None = None
    custom: Mapping[str, Any] | None = field(default=None, converter=_copied)

    @classmethod
    def of(cls, value: Metrics | Usage | Mapping[str, Any] | None) -> Metrics | None:
        """Metrics as callers give them: made, as a mapping of the same names, or as a `Usage`.

        Raises:
            InvalidRequestError: for anything else, for an unknown name, and for a value outside of its bounds.
        """
        if value is None or isinstance(value, Metrics):
            return value
        if isinstance(value, Usage):
            return value.metrics()
        if not isinstance(value, Mapping):
            raise InvalidRequestError(f"metrics must be a cycles.Metrics or a mapping, got {type(value).__name__}")
        if unknown := sorted(str(name) for name in value if name not in _MEMBERS):
            raise InvalidRequestError(f"metrics has no {', '.join(unknown)}; put your own values into metrics.custom")
        return cls(**{name: checked_member(name, member) for name, member in value.items()})

    def to_dict(self) -> dict[str, Any]:
        """The metrics as they go over the wire, without what the protocol does not allow."""
        wire, _ = usable_members(members_of(self))
        return wire


def members_of(metrics: Metrics) -> dict[str, Any]:
    """Return the members that were given, as they were given."""
    return {name: value for name in _MEMBERS if (value := getattr(metrics, name)) is not None}


def checked_member(name: str, value: Any) -> Any:
    """Return the value of a member of `Metrics`, or None if there is none.

    Raises:
        InvalidRequestError: the protocol does not allow it.
    """
    return None if value is None else _MEMBERS[name](value, f"metrics.{name}")


def usable_members(members: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what can be sent of the members of metrics, and the places of what cannot. Never raises."""
    usable: dict[str, Any] = {}
    omitted: list[str] = []
    for name, member in members.items():
        try:
            usable[name] = checked_member(name, member)
        except Exception:  # also an unknown name, and what a mapping of the caller raises
            if name == "custom":
                usable[name], lost = salvage_json(member, "metrics.custom")
                if not isinstance(usable[name], dict):
                    del usable[name]
                    lost = lost or ["metrics.custom"]
                omitted += lost
            else:
                omitted.append(f"metrics.{name}")
    return {name: value for name, value in usable.items() if value not in (None, {})}, omitted


@frozen
class ResponseUsage:
    """What one response used.

    Attributes:
        counts: By the names in `docs/prices.md`.
        model: The model of this response; None if it names none.
        context: What selects a price variant, for example ``{"service_tier": "flex"}``.
    """

    counts: Mapping[str, int]
    model: str | None = None
    context: Mapping[str, str] = field(factory=dict)


@define(eq=False)
class _Response:
    """The counts of one response so far, and those of them that are in the totals."""

    counts: dict[str, int] = field(factory=dict)
    added: dict[str, int] = field(factory=dict)
    model: str | None = None
    context: dict[str, str] = field(factory=dict)


@define(eq=False)
class _Account:
    """What the views of one `Usage` share. `on_change` is called after counts were added, in that thread."""

    lock: AbstractContextManager[bool] = field(factory=lambda: threading.RLock())
    on_change: Callable[[], object] | None = None
    counts: dict[str, int] = field(factory=dict)
    responses: dict[object, _Response] = field(factory=dict)
    model: str | None = None
    custom: dict[str, Any] = field(factory=dict)


class Usage:
    """What a guard's work has used so far; it becomes the commit's metrics unless others are given.

    ``usage.add(tokens_output=12)`` adds counts; several threads may call it. The counts of each model response are
    kept beside them, because a long-context price applies to one request. The main counts and `model_version` can be
    set too, and `custom` takes more JSON values.
    """

    __slots__ = ("_account", "_current")

    def __init__(self) -> None:
        self._account = _Account()
        self._current: object = None

    def add(
        self, *, model_version: str | None = None, custom: Mapping[str, Any] | None = None, **counts: Unpack[Counts]
    ) -> Self:
        """Add to the counts.

        Args:
            model_version: The model that responded, at most 128 characters.
            custom: Merged into `custom`.
            counts: Any count of `docs/prices.md`: `tokens_input` (all tokens that the model read),
                `tokens_output`, `tokens_cached_input`, `web_searches`, ...

        Raises:
            InvalidRequestError: for a negative or fractional count; then nothing is added.
            TypeError: for a name that is no count.
        """
        # All checks come before the first change, so a wrong count adds nothing.
        checked = checked_counts(counts)
        merged = {} if custom is None else clean_object(custom, "usage.custom")
        if model_version is not None:
            self.model_version = model_version
        account = self._account
        with account.lock:
            _add(account.counts, checked)
            account.custom.update(merged)
        self._changed()
        return self

    def see_response(
        self,
        response_id: object,
        counts: Mapping[str, int],
        *,
        model: str | None = None,
        context: Mapping[str, str] | None = None,
        part: str | None = None,
    ) -> None:
        """Store what one response reports so far, in place of what that response reported before.

        Args:
            response_id: The id of the response, or None for the response that was seen last.
            counts: Totals of that response by count name; one that is smaller than before is ignored.
            model: The model of that response.
            context: What selects its price variant.
            part: Names a further response inside this one, with its own model and price.
        """
        if response_id is not None:
            self._current = response_id
        account = self._account
        with account.lock:
            if model and part is None:
                account.model = model
            key = self._current, part
            seen = account.responses.get(key) or account.responses.setdefault(key, _Response())
            seen.model = model or seen.model
            if context:
                seen.context.update(context)
            while True:
                before = seen.counts
                after = _raised(before, counts)
                if seen.counts is before:  # else a signal handler has raised them in the meantime
                    seen.counts = after
                    break
            # What an interrupt leaves out here is added when the response is read again.
            for name, total in after.items():
                if total != seen.added.setdefault(name, 0):
                    account.counts.setdefault(name, 0)
                    # No call until the end of these lines: a signal cannot come in between.
                    more = seen.counts[name] - seen.added[name]
                    account.counts[name] += more
                    seen.added[name] += more
        self._changed()

    def watch(self, on_change: Callable[[], object]) -> None:
        """Call `on_change` now if there are counts, and after each addition, in the thread that made it.

        It replaces an earlier one.
        """
        self._account.on_change = on_change
        if self._account.counts:  # those that a token had
            on_change()

    def _changed(self) -> None:
        on_change = self._account.on_change
        if on_change is not None:
            on_change()

    def for_stream(self) -> Usage:
        """Return a view of the same counts for one more stream, so that responses without ids stay apart."""
        view = object.__new__(Usage)
        view._account = self._account
        view._current = object()
        return view

    def responses(self) -> list[ResponseUsage]:
        """Return the usage of each response; the counts that were added by hand come last, as one more."""
        account = self._account
        with account.lock:
            filled = [one for one in account.responses.values() if one.counts]
            seen = [ResponseUsage(dict(one.counts), one.model, dict(one.context)) for one in filled]
            # What no response reports was added by the caller; it is priced as a response of its own.
            by_hand = dict(account.counts)
            for one in seen:
                for name, n in one.counts.items():
                    by_hand[name] = by_hand.get(name, 0) - n
        added = {name: n for name, n in by_hand.items() if n > 0}
        return [*seen, ResponseUsage(added, account.model)] if added else seen

    def metrics(self) -> Metrics:
        """Return the counts as metrics, without a latency."""
        return Metrics(**self._members())

    @property
    def counts(self) -> Mapping[str, int]:
        """All counts, by name; read-only."""
        return MappingProxyType(self._account.counts)

    @property
    def is_filled(self) -> bool:
        """True once anything was counted or set."""
        return bool(self._account.counts or self._account.custom)

    @property
    def custom(self) -> dict[str, Any]:
        """More values to send, as JSON values."""
        return self._account.custom

    @custom.setter
    def custom(self, value: Mapping[str, Any]) -> None:
        self._account.custom = clean_object(value, "usage.custom")

    @property
    def tokens_input(self) -> int:
        """Tokens the model read so far."""
        return self._account.counts.get("tokens_input", 0)

    @tokens_input.setter
    def tokens_input(self, value: int) -> None:
        self._account.counts["tokens_input"] = checked_count(value, "usage.tokens_input")

    @property
    def tokens_output(self) -> int:
        """Tokens the model wrote so far."""
        return self._account.counts.get("tokens_output", 0)

    @tokens_output.setter
    def tokens_output(self, value: int) -> None:
        self._account.counts["tokens_output"] = checked_count(value, "usage.tokens_output")

    @property
    def tokens_cached_input(self) -> int:
        """How many of `tokens_input` came from the provider's cache."""
        return self._account.counts.get("tokens_cached_input", 0)

    @property
    def tokens_cache_write(self) -> int:
        """How many of `tokens_input` were written to the provider's cache."""
        return self._account.counts.get("tokens_cache_write", 0)

    @property
    def model_version(self) -> str | None:
        """The model that responded, at most 128 characters."""
        return self._account.model

    @model_version.setter
    def model_version(self, value: str | None) -> None:
        self._account.model = None if value is None else checked_text(value, "usage.model_version")

    def __repr__(self) -> str:
        model = f", {self.model_version}" if self.model_version else ""
        return f"<Usage {self.tokens_input} tokens in, {self.tokens_output} out{model}>"

    def _members(self) -> dict[str, Any]:
        account = self._account
        members: dict[str, Any] = {name: n for name, n in account.counts.items() if name in _MEMBERS}
        if account.model is not None:
            members["model_version"] = account.model
        if custom := {name: n for name, n in account.counts.items() if name in CUSTOM_COUNTS} | account.custom:
            members["custom"] = custom
        return members


def _raised(seen: Mapping[str, int], reported: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of a response with those that it reports now, if they are larger."""
    raised = dict(seen)
    for name, total in reported.items():
        if total > raised.get(name, -1):  # a reported 0 is stored: it is not an absent count
            raised[name] = total
    # A provider may report a part before its whole, or more cached tokens than it counts as input.
    clip_parts(raised)
    return raised


def _add(totals: dict[str, int], counts: Mapping[str, int]) -> None:
    """Add to the totals. What is read and what is stored have no call between them."""
    for name, more in counts.items():
        if more:
            totals.setdefault(name, 0)
            totals[name] += more


def salvage_metrics(value: Metrics | Usage | Mapping[str, Any] | None) -> tuple[Metrics | None, list[str]]:
    """Return the usable members of the caller's metrics, and the names of the others. Never raises."""
    if value is None:
        return None, []
    if isinstance(value, Usage):
        value = value.metrics()
    if isinstance(value, Metrics):
        usable, omitted = usable_members(members_of(value))
        return Metrics(**usable), omitted
    if not isinstance(value, Mapping):
        return None, ["metrics"]
    try:
        members = dict(value.items())
    except Exception:  # a caller's own mapping may raise anything
        return None, ["metrics"]
    usable, omitted = usable_members(members)
    return (Metrics(**usable) if usable else None), omitted


def settlement_metrics(
    given: Metrics | None, usage: Usage | None, latency_ms: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The metrics of a settlement as they go over the wire, and the places that had to be left out. Never raises.

    Args:
        given: What the caller passed; it replaces the usage completely.
        usage: The guard's running account, used if `given` is None; None if nothing was counted.
        latency_ms: The measured time of the block, used if neither has a latency.
    """
    # What the caller states replaces what was counted: the two may count the same tokens.
    members = members_of(given) if given is not None else {} if usage is None else usage._members()
    wire, omitted = usable_members(members) if members else ({}, [])
    if latency_ms is not None and latency_ms >= 0:
        wire.setdefault("latency_ms", latency_ms)
    return wire, omitted


public(Metrics, Usage)
readable(ResponseUsage)
