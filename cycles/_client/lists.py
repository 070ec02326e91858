"""The lists of the client, each described once: they are read page by page, lazily. `find` reads one row."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Unpack

from cycles._client.call_options import RequestOptions
from cycles._client.operation_context import OperationContext, Pages, ResultT
from cycles._client.options import AnySubject, checked_flag
from cycles._core.messages.paging import Cursors
from cycles._core.messages.requests import Call, aware, check_key, without_none
from cycles._core.protocol import GET_BALANCES, LIST_ACTION_KINDS, LIST_RESERVATIONS
from cycles._core.results import Balance, ReservationSummary
from cycles._core.subjects import LEVELS, Subject, as_subject
from cycles._core.values.action_kinds import ActionKind

_AS_GIVEN: Final = {"from": "created_from", "to": "created_to"}  # wire name: name of the argument


async def find(
    context: OperationContext, *, idempotency_key: str, **request: Unpack[RequestOptions]
) -> ReservationSummary | None:
    """Return the reservation that was made with an idempotency key, or None. `client.attach` continues it.

    Raises:
        CyclesError: The server returned no list.
    """
    # With both kinds of metadata: `attach` and the caller see what the first run has stored.
    rows = reservations(context, idempotency_key=check_key(idempotency_key), include=("metadata", "committed_metadata"))
    items = await rows.fetch(context, Cursors())
    return items[0] if items else None


def balances(
    context: OperationContext,
    *,
    subject: AnySubject = None,
    include_children: bool = False,
    **request: Unpack[RequestOptions],
) -> Pages[Balance]:
    """Iterate over the budgets of a subject, lazily. Levels that `subject` leaves out come from the configuration.

    Raises:
        InvalidRequestError: No level of the subject is set.
    """
    children = {"include_children": True} if checked_flag("include_children", include_children) else {}
    query = {**_levels(context.subject(subject)), **children}
    return _pages(context, Call(GET_BALANCES, query=query), "balances", Balance)


def reservations(
    context: OperationContext,
    *,
    status: str | None = None,
    subject: AnySubject = None,
    idempotency_key: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    expires_from: datetime | None = None,
    expires_to: datetime | None = None,
    finalized_from: datetime | None = None,
    finalized_to: datetime | None = None,
    sort_by: str | None = None,
    sort_dir: str | None = None,
    include: Iterable[str] = (),
    limit: int | None = None,
    **request: Unpack[RequestOptions],
) -> Pages[ReservationSummary]:
    """Iterate over the reservations of the tenant, lazily. A row matches all filters; times are inclusive.

    Args:
        status: ACTIVE, COMMITTED, RELEASED or EXPIRED.
        subject: Levels that the scope of the reservation must have. The configuration adds none.
        idempotency_key: The key of the reserve.
        created_from, created_to, expires_from, expires_to, finalized_from, finalized_to: Aware datetimes.
        sort_by: reservation_id, tenant, scope_path, status, reserved, created_at_ms or expires_at_ms.
        sort_dir: asc or desc.
        include: Members that the rows contain in addition: metadata, committed_metadata, evidence.
        limit: Rows of one page, 1 to 200. The iterator reads the next page when it needs it.

    Raises:
        InvalidRequestError: A filter is wrong, for example a naive datetime. The message names it.
    """
    times = {
        "from": created_from,
        "to": created_to,
        "expires_from": expires_from,
        "expires_to": expires_to,
        "finalized_from": finalized_from,
        "finalized_to": finalized_to,
    }
    query = {
        **_levels(as_subject(subject)),
        **without_none(idempotency_key=idempotency_key, status=status, sort_by=sort_by, sort_dir=sort_dir, limit=limit),
        **{name: aware(_AS_GIVEN.get(name, name), value) for name, value in times.items() if value is not None},
    }
    members = [include] if isinstance(include, str) else list(include)
    if members:
        query["include"] = members
    return _pages(context, Call(LIST_RESERVATIONS, query=query), "reservations", ReservationSummary)


def action_kinds(
    context: OperationContext,
    *,
    risk_class: str | None = None,
    include_deprecated: bool = False,
    **request: Unpack[RequestOptions],
) -> Pages[ActionKind]:
    """Iterate over the server's registry of action kinds, lazily. No API key is sent. Needs protocol 0.1.26.

    Args:
        risk_class: read_only, local_mutation, side_effect, external_side_effect or high_risk.
        include_deprecated: Whether to include deprecated kinds.

    Raises:
        InvalidRequestError: There is no such risk class.
    """
    deprecated = {"deprecated": True} if checked_flag("include_deprecated", include_deprecated) else {}
    query = {**without_none(risk_class=risk_class), **deprecated}
    return _pages(context, Call(LIST_ACTION_KINDS, query=query), "kinds", ActionKind)


def _pages(context: OperationContext, call: Call, member: str, item: type[ResultT]) -> Pages[ResultT]:
    context.io.check(call)
    return Pages(call, member, item)


def _levels(subject: Subject) -> dict[str, str]:
    return {level: value for level in LEVELS if (value := getattr(subject, level)) is not None}
