"""Compare types, bounds and enum values. The direction decides: a sender or a reader may be affected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from generator.diff import Change
from generator.document import Json

SENT: Final = "sent"
READ: Final = "read"

# Keyword, and whether a larger number of the new version allows more.
_BOUNDS: Final = {
    "minimum": False, "exclusiveMinimum": False, "minLength": False, "minItems": False, "minProperties": False,
    "maximum": True, "exclusiveMaximum": True, "maxLength": True, "maxItems": True, "maxProperties": True,
}  # fmt: skip


def null_change(where: str, allowed: bool, ways: set[str], names: tuple[str, ...], *, optional: bool) -> Change:
    """Return the change that null is now allowed, or no longer. A null optional member of a response is absent."""
    breaking = (allowed and READ in ways and not optional) or (not allowed and SENT in ways)
    reason = "a required null is invalid to old clients" if allowed else "servers may reject null"
    detail = "may be null" if allowed else "may no longer be null"
    return Change("type", "changed", where, detail, breaking, reason if breaking else "", names)


def openness_change(where: str, allowed: Any, ways: set[str], names: tuple[str, ...]) -> Change:
    """Return the change that members which the schema does not name are now allowed, or no longer."""
    breaking = allowed is False and SENT in ways
    detail = "further members rejected" if allowed is False else "further members allowed"
    reason = "requests with further members fail" if breaking else ""
    return Change("schema", "changed", where, detail, breaking, reason, names)


def type_changes(where: str, old: Json, new: Json, ways: set[str], names: tuple[str, ...]) -> Iterator[Change]:
    """Return the change of a type. It is harmless only if it allows more to be sent or less to be read."""
    before, after = old.get("type", "anything"), new.get("type", "anything")
    widened = (before == "integer" and after == "number") or after == "anything"
    narrowed = (before == "number" and after == "integer") or before == "anything"
    harmless = (widened and ways <= {SENT}) or (narrowed and ways <= {READ})
    reason = "" if harmless else "what old clients send or expect has another type"
    yield Change("type", "changed", where, f"{before} -> {after}", not harmless, reason, names)


def value_changes(where: str, old: Json, new: Json, ways: set[str], names: tuple[str, ...]) -> Iterator[Change]:
    """Return changes of enums, bounds, patterns and formats."""
    yield from _enum_changes(where, old.get("enum"), new.get("enum"), ways, names)
    for keyword, larger_allows_more in _BOUNDS.items():
        before, after = old.get(keyword), new.get(keyword)
        if before != after:
            wider = after is None or (before is not None and (after > before) == larger_allows_more)
            breaking = (not wider and SENT in ways) or (wider and READ in ways)
            reason = "servers reject values of old clients" if not wider else "responses may exceed the old bound"
            detail = f"{keyword}: {_shown(before)} -> {_shown(after)}"
            yield Change("bound", "changed", where, detail, breaking, reason if breaking else "", names)
    for keyword in ("pattern", "format", "const", "multipleOf", "uniqueItems"):
        before, after = old.get(keyword), new.get(keyword)
        if before != after:
            loosened = after is None
            breaking = keyword != "const" and not (loosened and ways <= {SENT})
            reason = "values of one version may be invalid to the other" if breaking else ""
            detail = f"{keyword}: {_shown(before)} -> {_shown(after)}"
            yield Change("bound", "changed", where, detail, breaking, reason, names)


def _enum_changes(where: str, old: Any, new: Any, ways: set[str], names: tuple[str, ...]) -> Iterator[Change]:
    if old == new or old is None or new is None:
        if old != new:
            breaking = old is None and SENT in ways
            detail = "any value allowed" if new is None else f"only {', '.join(map(str, new))}"
            reason = "servers reject values of old clients" if breaking else ""
            yield Change("enum", "changed", where, detail, breaking, reason, names)
        return
    for value in (value for value in old if value not in new):
        breaking = SENT in ways
        reason = "old clients may send it" if breaking else "no response contains it any more"
        yield Change("enum value", "removed", where, str(value), breaking, reason, (str(value), *names))
    for value in (value for value in new if value not in old):
        yield Change("enum value", "added", where, str(value), reason="old clients keep it unchanged", names=names)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
