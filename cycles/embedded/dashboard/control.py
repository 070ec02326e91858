"""Run what `POST /dashboard/control` requests: change a budget, a manual clock, or the faults."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, Final

from cycles._core.amounts import Amount, Unit
from cycles._errors import InvalidRequestError
from cycles.embedded.clock import Clock, ManualClock
from cycles.embedded.faults import Faults
from cycles.embedded.operator import Operator

KINDS: Final = ("delay", "drop_response", "status", "drip")
_MAX_ADVANCE_MS: Final = 10 * 365 * 86_400_000
_MAX_SECONDS: Final = 3_600.0
_STATUSES: Final = range(200, 600)
_UNIT_NAMES: Final = {"USD": Unit.USD_MICROCENTS.value, **{unit.value: unit.value for unit in Unit}}


class Controls:
    """The controls of one server. Each returns a sentence that says what was done."""

    def __init__(self, operator: Operator, faults: Faults, clock: Clock) -> None:
        self._operator = operator
        self._faults = faults
        self._clock = clock
        self._actions: dict[str, Callable[[dict[str, Any]], str]] = {
            "fund": self._fund,
            "set": self._set,
            "freeze": lambda form: self._set_status(form, "FROZEN"),
            "unfreeze": lambda form: self._set_status(form, "ACTIVE"),
            "advance": self._advance,
            "fault": self._add_fault,
            "clear_faults": self._clear_faults,
        }

    def run(self, form: object) -> str:
        """Do what a request names in its member `do`.

        Raises:
            InvalidRequestError: (a ValueError) naming the member that is wrong.
        """
        if not isinstance(form, dict):
            raise InvalidRequestError("the body is not a JSON object; send one like {'do': 'clear_faults'}")
        action = self._actions.get(str(form.get("do")))
        if action is None:
            raise InvalidRequestError(f"unknown do: {form.get('do')!r:.80}; use {', '.join(self._actions)}")
        try:
            return action(form)
        except KeyError as missing:
            raise InvalidRequestError(f"{missing.args[0].partition(';')[0]}; use set to create one") from None

    def _fund(self, form: dict[str, Any]) -> str:
        scope, amount = _string(form, "scope"), self._amount(form)
        self._operator.fund(scope, amount)
        return f"funded {scope} with {amount}"

    def _set(self, form: dict[str, Any]) -> str:
        scope, amount = _string(form, "scope"), self._amount(form)
        self._operator.set_allocated(scope, amount)
        return f"set the budget of {scope} to {amount}"

    def _amount(self, form: dict[str, Any]) -> Amount:
        """Return the amount of a form. A number without a unit takes the unit beside it, or that of the only budget."""
        text, unit = _string(form, "amount"), form.get("unit")
        if text.replace(".", "", 1).replace(",", "").replace("_", "").isdecimal():
            with contextlib.suppress(KeyError):
                unit = unit or self._operator.balance(_string(form, "scope")).remaining.unit
            if unit is not None:
                text += "USD" if unit == Unit.USD_MICROCENTS else _string({"unit": unit}, "unit")
        return Amount.parse(text)

    def _set_status(self, form: dict[str, Any], status: str) -> str:
        scope = _string(form, "scope")
        unit = None if form.get("unit") is None else _string(form, "unit")
        if unit is not None and unit not in _UNIT_NAMES:
            raise InvalidRequestError(f"unknown unit: {unit!r:.80}; use {', '.join(Unit)}")
        self._operator.set_status(scope, status, None if unit is None else _UNIT_NAMES[unit])
        return f"{'froze' if status == 'FROZEN' else 'unfroze'} {scope}"

    def _advance(self, form: dict[str, Any]) -> str:
        ms = _integer(form, "ms", range(1, _MAX_ADVANCE_MS))
        if not isinstance(self._clock, ManualClock):
            raise InvalidRequestError("the clock is the machine's; start the server with a cycles.ManualClock")
        self._clock.advance(ms)
        return f"advanced the clock by {ms} ms"

    def _add_fault(self, form: dict[str, Any]) -> str:
        operation, kind = _string(form, "operation"), _string(form, "kind")
        times = _integer(form, "times", range(1, 1_000_000), 1)
        match kind:
            case "delay":
                self._faults.delay(operation, _seconds(form, 1.0), times=times)
            case "drip":
                self._faults.drip(operation, interval=_seconds(form, 0.05), times=times)
            case "drop_response":
                self._faults.drop_response(operation, times=times)
            case "status":
                self._faults.status(operation, _integer(form, "status", _STATUSES, 503), times=times)
            case _:
                raise InvalidRequestError(f"unknown kind: {kind!r:.80}; use {', '.join(KINDS)}")
        return f"added {kind} to the next {'request' if times == 1 else f'{times} requests'} of {operation}"

    def _clear_faults(self, form: dict[str, Any]) -> str:
        self._faults.clear()
        return "removed all faults"


def _string(form: dict[str, Any], name: str) -> str:
    value = form.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequestError(f"{name} must be a string, got {value!r:.80}")
    return value.strip()


def _integer(form: dict[str, Any], name: str, allowed: range, default: int | None = None) -> int:
    value = form.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise InvalidRequestError(
            f"{name} must be an integer, got {value!r:.80}; send {allowed.start} to {allowed.stop - 1}"
        )
    return value


def _seconds(form: dict[str, Any], default: float) -> float:
    value = form.get("seconds", default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= _MAX_SECONDS:
        raise InvalidRequestError(f"seconds must be a number, got {value!r:.80}; send 0 to {_MAX_SECONDS:g}")
    return float(value)
