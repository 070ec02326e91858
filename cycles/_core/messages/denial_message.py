"""What a denied reservation requested, for which subject, and which scope had too little left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.results import Balance
from cycles._core.subjects import LEVELS, Subject

_LEFT: tuple[str, ...] = ("remaining", "available")


def denial_message(
    request: ReserveRequest, details: Mapping[str, Any] | None = None, balances: Iterable[Balance] | None = None
) -> str:
    """Return "requested $2.00 on tenant:acme/agent:bot; tenant:acme has $0.98 left".

    Args:
        request: The reservation that was denied.
        details: The details of the error response.
        balances: The budgets of the response, outermost first.
    """
    requested = f"requested {request.estimate} on {_path(request.subject)}"
    details, scope = details or {}, _scope(details or {})
    # The details name the scope that denied; the balances only show which one has too little.
    left = _from_details(request.estimate, details, scope) or _from_balances(request.estimate, balances or (), scope)
    if left is None and scope is not None:
        left = f"rejected by {scope:.200}"
    return requested if left is None else f"{requested}; {left}"


def _path(subject: Subject) -> str:
    levels = ((level, getattr(subject, level)) for level in LEVELS)
    return "/".join(f"{level}:{value}" for level, value in levels if value) or "an empty subject"


def _scope(details: Mapping[str, Any]) -> str | None:
    nested = details.get("deny_detail")
    scope = nested.get("blocked_by_scope") if isinstance(nested, Mapping) else details.get("scope")
    return scope if isinstance(scope, str) and scope else None


def _from_details(estimate: Amount, details: Mapping[str, Any], scope: str | None) -> str | None:
    if scope is None:
        return None
    for name in _LEFT:
        left = _signed(estimate, details.get(name))
        if left is not None:
            return f"{scope:.200} has {left} left"
    return None


def _signed(estimate: Amount, value: Any) -> SignedAmount | None:
    unit: Any = estimate.unit
    amount = value
    if isinstance(value, Mapping):
        unit, amount = value.get("unit"), value.get("amount")
    # A server may send any value there; a denial must not fail because of its explanation.
    if type(amount) is not int or not isinstance(unit, str):
        return None
    try:
        return SignedAmount(unit, amount)
    except ValueError:
        return None


def _from_balances(estimate: Amount, balances: Iterable[Balance], scope: str | None) -> str | None:
    for balance in balances:
        if scope is not None and scope not in (balance.scope, balance.scope_path):
            continue
        left = balance.remaining
        if left.unit == estimate.unit and left.amount < estimate.amount:
            return f"{balance.scope_path or balance.scope} has {left} left"
    return None
