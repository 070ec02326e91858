"""Bulk actions: one change for every row that a filter chooses. See `docs/admin.md`.

Rows are not one transaction: a row may fail although others are changed. A request with the key of an earlier one gets
the response of that one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body

_KEPT_MS: Final = 15 * 60_000
_MOST_ROWS: Final = 500
_Row = TypeVar("_Row")


def run(
    state: AdminState,
    call: AdminCall,
    about: str,
    find: Callable[[Body], Sequence[_Row]],
    id_of: Callable[[_Row], str],
    change: Callable[[_Row], bool],
) -> Result:
    """Change the rows that the request's filter chooses, and return how each one ended.

    Args:
        about: What the rows are, for the audit log: ``"tenant"``, ``"budget"`` or ``"webhook"``.
        find: Returns the rows of a filter.
        id_of: Returns the id of a row.
        change: Changes a row. It returns False if the row is in that state already, and raises `ApiError` if it fails.

    Raises:
        ApiError: The request is wrong, or another number of rows matches than it expects. Nothing was changed.
    """
    form = call.form
    kind = f"bulk_{about}"
    replay = state.stored_response(kind, form["idempotency_key"], call)
    if replay is not None:
        return Result(200, replay, call.tenant)
    if not form["filter"]:
        raise ApiError("INVALID_REQUEST", "filter: must contain at least one member")
    rows = find(form["filter"])
    _check_count(form, len(rows), about)
    key = {"idempotency_key": form["idempotency_key"]}
    body: Body = {"action": form["action"], "total_matched": len(rows), **_changed(rows, id_of, change), **key}
    state.store_response(kind, form["idempotency_key"], call, body, _KEPT_MS)
    return Result(200, body, form["filter"].get("tenant_id"), (about, "bulk-action"), _audit(form, body))


def _check_count(form: Body, found: int, about: str) -> None:
    if found > _MOST_ROWS:
        message = f"{found} rows of {about} match, but at most {_MOST_ROWS} may; narrow the filter"
        raise ApiError("LIMIT_EXCEEDED", message, status=400)
    expected = form.get("expected_count", found)
    if expected != found:
        message = f"expected_count is {expected}, but {found} match; nothing was changed"
        raise ApiError("COUNT_MISMATCH", message, status=409, details={"total_matched": found})


def _changed(rows: Sequence[_Row], id_of: Callable[[_Row], str], change: Callable[[_Row], bool]) -> Body:
    ended: dict[str, list[Body]] = {"succeeded": [], "failed": [], "skipped": []}
    for row in rows:
        shown: Body = {"id": id_of(row)}
        try:
            if change(row):
                ended["succeeded"].append(shown)
            else:
                ended["skipped"].append(shown | {"reason": "ALREADY_IN_TARGET_STATE"})
        except ApiError as error:
            code = error.code if error.code == "BUDGET_EXCEEDED" else "INVALID_TRANSITION"
            ended["failed"].append(shown | {"error_code": code, "message": error.message})
    return ended


def _audit(form: Body, body: Body) -> Body:
    counts: dict[str, Any] = {name: len(body[name]) for name in ("succeeded", "failed", "skipped")}
    rows = {
        "succeeded_ids": [row["id"] for row in body["succeeded"]],
        "failed_rows": body["failed"],
        "skipped_rows": body["skipped"],
    }
    named = {name: form[name] for name in ("action", "filter", "idempotency_key")}
    return {**named, "total_matched": body["total_matched"], **counts, **rows}
