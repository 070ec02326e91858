"""Names of version 0.1 still work for one minor version, with a warning that says what to write."""

from __future__ import annotations

from typing import Any

import pytest

import cycles

EVENTS = {
    "Capped": cycles.events.Undercharged,
    "Flushed": cycles.events.SettlementsLeftPending,
    "GuardForgotten": cycles.events.GuardNotCommitted,
    "JournalTrouble": cycles.events.JournalProblem,
    "LateBeat": cycles.events.HeartbeatDelayed,
    "ValuesLeftOut": cycles.events.ValuesOmitted,
}


@pytest.mark.parametrize(("old", "new"), EVENTS.items(), ids=EVENTS)
def test_an_old_event_name_is_the_new_class(old: str, new: type[Any]) -> None:
    with pytest.warns(DeprecationWarning, match=f"^{old} is deprecated: write cycles.events.{new.__name__}$") as seen:
        assert getattr(cycles.events, old) is new
    assert [warning.filename for warning in seen] == [__file__]


def test_isinstance_works_with_an_old_event_name() -> None:
    event = cycles.events.Undercharged(actual=cycles.usd(2), charged=cycles.usd(1))
    with pytest.warns(DeprecationWarning, match="write cycles.events.Undercharged"):
        assert isinstance(event, cycles.events.Capped)


def test_the_old_member_why_is_detail() -> None:
    event: Any = cycles.events.ActualFailed(estimate=cycles.usd(1), detail="KeyError: 'usage'")
    with pytest.warns(DeprecationWarning, match=r"^ActualFailed.why is deprecated: write event.detail$") as seen:
        assert event.why == "KeyError: 'usage'"
    assert [warning.filename for warning in seen] == [__file__]


def test_an_event_without_a_detail_has_no_why() -> None:
    with pytest.raises(AttributeError, match="detail"):
        cycles.events.Released(reason=None).why  # type: ignore[attr-defined] # noqa: B018


def test_settlement_capped_is_undercharged() -> None:
    settlement: Any = cycles.Settlement(status="committed", actual=cycles.usd(2), charged=cycles.usd(1))
    with pytest.warns(DeprecationWarning, match=r"^Settlement.capped is deprecated: write settlement.undercharged$"):
        assert settlement.capped


def test_an_unknown_event_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Cappedd'"):
        cycles.events.Cappedd  # type: ignore[attr-defined] # noqa: B018
