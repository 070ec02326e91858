"""Table of the client methods that offer each operation of the protocol. It is printed in `docs/protocol.md`.

A new operation needs an entry: the methods that offer it, or the reason why there are none. Until then `make check`
fails and names it; `client.raw` can call it anyway. `python -m generator.coverage` updates the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

# Methods of `Cycles` (and, as coroutines, of `client.aio`); `Guard.x` are methods of both guards.
OFFERED: Final[dict[str, tuple[str, ...]]] = {
    "decide": ("decide",),
    "createReservation": ("reserve", "preview", "guarded"),
    "listReservations": ("reservations",),
    "getReservation": ("reservation",),
    "commitReservation": ("Guard.commit", "commit_reservation"),
    "releaseReservation": ("Guard.release", "release_reservation"),
    "extendReservation": ("Guard.extend", "extend_reservation"),
    "getEvidence": ("evidence",),
    "getEvidenceJwks": ("evidence_keys",),
    "getBalances": ("balances",),
    "createEvent": ("record",),
}
# Operations of protocol 0.1.26 that a document may contain or not.
OFFERED_LATER: Final[dict[str, tuple[str, ...]]] = {
    "listActionKinds": ("action_kinds",),
    "getActionKind": ("action_kind",),
}
# Operation id: the reason, as a sentence for the page.
NOT_OFFERED: Final[dict[str, str]] = {}

# Methods of `cycles.Admin` (and, as coroutines, of `admin.aio`); `admin.raw` calls the other operations.
ADMIN_OFFERED: Final[dict[str, tuple[str, ...]]] = {
    "createTenant": ("create_tenant", "onboard"),
    "getTenant": ("tenant",),
    "updateTenant": ("update_tenant", "suspend_tenant", "reactivate_tenant", "close_tenant"),
    "createBudget": ("create_budget", "onboard"),
    "lookupBudget": ("budget",),
    "listBudgets": ("budgets",),
    "fundBudget": ("fund", "credit", "debit", "resize", "repay_debt", "start_period"),
    "bulkActionBudgets": ("start_periods",),
    "freezeBudget": ("freeze",),
    "unfreezeBudget": ("unfreeze",),
    "createApiKey": ("create_api_key", "rotate_api_key", "onboard"),
    "listApiKeys": ("api_keys",),
    "revokeApiKey": ("revoke_api_key",),
    "createWebhookSubscription": ("create_webhook",),
    "listAuditLogs": ("audit",),
    "listActionQuotaCounters": ("quota_counters",),
    "resetActionQuotaCounter": ("reset_quota_counter",),
}

PAGE: Final = Path(__file__).parent.parent / "docs" / "protocol.md"
BEGIN: Final = "<!-- operations: updated by `python -m generator.coverage` -->"
END: Final = "<!-- end of operations -->"


def gaps(operations: Mapping[str, Any]) -> Iterator[str]:
    """Return where the two tables above disagree with the protocol, one line each."""
    for name, entry in operations.items():
        if name not in OFFERED and name not in OFFERED_LATER and name not in NOT_OFFERED:
            place = f"{entry['method']} {entry['path']}"
            yield f"operation {name} ({place}) is new: give it a line in generator/coverage.py (client.raw reaches it)"
    for name in (*OFFERED, *NOT_OFFERED):
        if name not in operations:
            yield f"operation {name} was removed, but generator/coverage.py lists it as offered: {_offer(name)}"


def admin_gaps(operations: Mapping[str, Any]) -> Iterator[str]:
    """Return the operations that `cycles.Admin` uses and an admin document does not have, one line each."""
    for name, methods in ADMIN_OFFERED.items():
        if name not in operations:
            calls = ", ".join(f"`admin.{method}`" for method in methods)
            yield f"operation {name} was removed, but generator/coverage.py lists it as offered: {calls}"


def table(operations: Mapping[str, Any]) -> str:
    """Return the table of the page, as Markdown."""
    lines = ["| operation | request | offered by |", "|---|---|---|"]
    for name, entry in operations.items():
        lines.append(f"| `{name}` | `{entry['method']} {entry['path']}` | {_offer(name)} |")
    return "\n".join(lines)


def _offer(name: str) -> str:
    methods = OFFERED.get(name) or OFFERED_LATER.get(name)
    if methods is not None:
        return ", ".join(f"`{method}`" if "." in method else f"`client.{method}`" for method in methods)
    return NOT_OFFERED.get(name, "`client.raw` only, so far")


def updated(page: str, operations: Mapping[str, Any]) -> str:
    """Return the page with the current table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(operations)}\n\n{END}{after}"


def main() -> int:
    """Update the page from the generated client. Return exit status 1 if an operation has no entry."""
    from cycles_client.protocol import OPERATIONS

    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), OPERATIONS), encoding="utf-8")
    found = list(gaps(OPERATIONS))
    for gap in found:
        print(gap, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
