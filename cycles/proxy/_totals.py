"""What a run has spent and denied: counts, and the summary that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from attrs import Factory, define

from cycles._core.amounts import Amount
from cycles.embedded.forecast import forecast_text
from cycles.embedded.windows import WORDS, edge_text, zone_of
from cycles.providers._call import Call
from cycles.proxy._agent_tree import AgentTree
from cycles.proxy._routes import route_of_host
from cycles.proxy._shares import Share
from cycles.proxy._shown import shown

MOST_IDS: Final = 10_000
MOST_DETAILS: Final = 100
"""How many details of a reason are kept; a program chooses them."""
MOST_SHOWN: Final = 3
"""How many of them the summary names."""
OTHERS: Final = "others"


@define
class Totals:
    """Counts of one run.

    Attributes:
        unit: The unit of all amounts.
        requests: All requests that have reached the proxy.
        calls: Metered requests that were sent.
        denied_by: Requests that were denied, by reason, with unknown models and unmetered paths.
        failed_by: Metered requests that were not sent because something failed, by reason.
        details: By reason, what was denied.
        waited: Calls that have waited for their budget, also if they were denied then.
        lowered: Calls whose output limit was lowered to fit their budget.
        passed: Requests that cost nothing.
        unmetered: Requests that may have cost money and were not metered.
        estimated: Calls whose cost is an estimate.
        spent: The cost of all calls.
        models: By model, the number of calls and their cost.
        paths: Unmetered paths, with the number of requests.
        rejected_hosts: Hosts to which tunnels were rejected, and how often.
        allowed_hosts: Hosts of providers to which tunnels were allowed, and how often.
        captured: Captured hosts, with the number of their requests.
        untrusted: Captured hosts whose certificate or HTTP/1.1 the program rejected, and how often.
        sealed: How the program's network was sealed; None: it was not.
        decided: Whether the ledger has allowed or denied a call.
        undecided: The first error of the ledger before it decided any call; None: there was none.
        reservations: Ids of the reservations, at most `MOST_IDS`.
        agents: What the agents have used that the program or its shares name.
    """

    unit: str = "USD_MICROCENTS"
    requests: int = 0
    calls: int = 0
    denied_by: Counter[str] = Factory(Counter)
    failed_by: Counter[str] = Factory(Counter)
    details: dict[str, Counter[str]] = Factory(dict)
    waited: int = 0
    lowered: int = 0
    passed: int = 0
    unmetered: int = 0
    estimated: int = 0
    spent: int = 0
    models: dict[str, list[int]] = Factory(dict)
    paths: Counter[str] = Factory(Counter)
    rejected_hosts: Counter[str] = Factory(Counter)
    allowed_hosts: Counter[str] = Factory(Counter)
    captured: Counter[str] = Factory(Counter)
    untrusted: Counter[str] = Factory(Counter)
    sealed: str | None = None
    decided: bool = False
    undecided: str | None = None
    reservations: set[str] = Factory(set)
    agents: AgentTree = Factory(lambda self: AgentTree(self.unit), takes_self=True)
    _unsettled: list[Any] = Factory(list)

    @property
    def denied(self) -> int:
        """Requests that were denied."""
        return self.denied_by.total()

    @property
    def failed(self) -> int:
        """Metered requests that were not sent because something failed."""
        return self.failed_by.total()

    @property
    def is_stuck(self) -> bool:
        """Whether calls failed because of the ledger, and it decided none."""
        return self.undecided is not None and not self.decided

    @property
    def pending(self) -> int:
        """Calls whose settlement the ledger has not confirmed."""
        return sum(guard.state == "pending" for guard in self._unsettled)

    @property
    def knows_all(self) -> bool:
        """Whether `reservations` has all of them."""
        return len(self.reservations) < MOST_IDS

    def admitted(self, call: Call) -> None:
        """Count whether a call has waited, and whether its output limit was lowered."""
        self.waited += call.waited
        self.lowered += call.output_limit is not None

    def settled(self, call: Call, share: Share | None) -> None:
        """Count a call that has ended, of a share or of the run itself."""
        self.calls += 1
        self.released(call)
        ending = call.ending
        amount = 0 if ending is None or ending.amount is None else ending.amount.amount
        if ending is not None and ending.metadata.get("actual_source") == "estimate":
            self.estimated += 1
        self.spent += amount
        counts = self.models.setdefault(call.request.model or call.request.endpoint, [0, 0])
        counts[0] += 1
        counts[1] += amount
        if "agent_path" in call.notes:
            self.agents.add(call.notes["agent_path"], amount)
        for each in share.with_parents() if share is not None else ():
            each.calls += 1
            each.spent += amount

    def released(self, call: Call) -> None:
        """Keep the reservation of a call that has ended, also if it was not sent."""
        if self.knows_all and call.guard.reservation_id is not None:
            self.reservations.add(call.guard.reservation_id)
        if call.guard.state in ("active", "pending"):
            self._unsettled.append(call.guard)

    def count_denied(self, share: Share | None, reason: str, detail: str | None = None) -> None:
        """Count a denied request, perhaps of a share."""
        self.denied_by[reason] += 1
        if detail is not None:
            found = self.details.setdefault(reason, Counter())
            found[detail if detail in found or len(found) < MOST_DETAILS else OTHERS] += 1
        for each in share.with_parents() if share is not None else ():
            each.denied += 1

    def document(self, seconds: float, exit_status: int) -> dict[str, Any]:
        """Return the summary as a JSON document."""
        return {
            "calls": self.calls,
            "denied": self.denied,
            "denied_by": dict(self.denied_by),
            "failed": self.failed,
            "failed_by": dict(self.failed_by),
            "waited": self.waited,
            "lowered": self.lowered,
            "passed": self.passed,
            "unmetered": self.unmetered,
            "estimated": self.estimated,
            "pending": self.pending,
            "spent": self._amount(self.spent),
            "models": {
                model: {"calls": calls, "spent": self._amount(spent)}
                for model, (calls, spent) in sorted(self.models.items())
            },
            "agents": self.agents.document(),
            "rejected_hosts": dict(self.rejected_hosts + self.untrusted),
            "allowed_hosts": dict(self.allowed_hosts),
            "captured": dict(self.captured),
            "sealed": self.sealed,
            "seconds": round(seconds, 3),
            "exit": exit_status,
        }

    def line(self, seconds: float, budget: Amount | None, kept: Mapping[str, Any] | None = None) -> str:
        """Return the summary as one line; if the kept ledger has a window, with what all runs have spent in it."""
        spent = f"{shown(self.unit, self.spent)} spent"
        if kept is not None and "window" in kept:
            spent = f"{_of(kept['spent']['amount'], Amount(**kept['budget']))} spent {_in_window(**kept['window'])}"
        elif budget is not None:
            spent = f"{_of(self.spent, budget)} spent"
        by_cost = sorted(self.models.items(), key=lambda item: -item[1][1])
        models = ", ".join(f"{model} {shown(self.unit, cost)}" for model, (_, cost) in by_cost)
        parts = [
            f"{self.calls} {'call' if self.calls == 1 else 'calls'}",
            f"{spent} ({models})" if models else spent,
            f"{self.denied} denied{_reasons(self.denied_by, self.details)}",
            *([f"{self.failed} failed{_reasons(self.failed_by, {})}"] if self.failed else []),
            *([f"{self.waited} waited"] if self.waited else []),
            *([f"{self.lowered} lowered"] if self.lowered else []),
            *([f"{self.unmetered} not metered"] if self.unmetered else []),
            *([f"{self.estimated} estimated"] if self.estimated else []),
            *([f"{self.pending} pending"] if self.pending else []),
            _duration(seconds),
        ]
        return ", ".join(parts)

    def _amount(self, amount: int) -> dict[str, Any]:
        return {"unit": self.unit, "amount": amount}

    def host_lines(self, *, captures: bool) -> list[str]:
        """Return a line for each host with connections that were not charged or failed, or that was captured.

        Args:
            captures: Whether hosts of routes are captured already.
        """
        lines = []
        for host, count in self.rejected_hosts.most_common():
            remedy = "--capture" if route_of_host(host) is not None and not captures else f"--allow-host {host}"
            lines.append(f"rejected: {_connections(count)} to {host}, which would not be charged; pass {remedy}")
        for host, count in self.untrusted.most_common():
            lines.append(
                f"rejected: {_connections(count)} to {host}: the program trusts no certificate of this run, or needs "
                f"HTTP/2; --allow-host {host} passes it uncharged"
            )
        for host, count in self.allowed_hosts.most_common():
            lines.append(f"not charged: {_connections(count)} to {host} (--allow-host)")
        for host, count in self.captured.most_common():
            lines.append(f"captured: {count} {'call' if count == 1 else 'calls'} to {host}")
        return lines

    def sealed_lines(self) -> list[str]:
        """Return how the network of the program was sealed, if it was."""
        how = {"namespace": "with a network namespace", "landlock": "with Landlock"}
        return [] if self.sealed is None else [f"sealed: {how[self.sealed]}"]


def _reasons(counts: Counter[str], details: Mapping[str, Counter[str]]) -> str:
    """Return the reasons of a count in brackets, each with its own count if there are several."""
    words = []
    for reason, count in counts.most_common():
        shown = [detail for detail, _ in details.get(reason, Counter[str]()).most_common()]
        more = [f"and {len(shown) - MOST_SHOWN} more"] if len(shown) > MOST_SHOWN else []
        named = f"{reason}: {', '.join([*shown[:MOST_SHOWN], *more])}" if shown else reason
        words.append(f"{count} {named}" if len(counts) > 1 else named)
    return f" ({'; '.join(words)})" if words else ""


def _of(spent: int, budget: Amount) -> str:
    return f"{shown(budget.unit, spent).removesuffix(' tokens')} of {shown(budget.unit, budget.amount, 2)}"


def _in_window(window: str, timezone: str, ends_at_ms: int, exhausted_at_ms: int | None = None) -> str:
    forecast = ""
    if exhausted_at_ms is not None:
        is_long = window in ("week", "month")
        forecast = f", {forecast_text(exhausted_at_ms, with_day=is_long, zone=zone_of(timezone))}"
    return f"{WORDS[window]} (until {edge_text(window, timezone, ends_at_ms)}{forecast})"


def _connections(count: int) -> str:
    return f"{count} {'connection' if count == 1 else 'connections'}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {whole % 60:02d} s"
