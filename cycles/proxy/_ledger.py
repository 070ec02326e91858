"""Which budgets a run has: those of a configured server, or an embedded server of the run itself."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from attrs import evolve

import cycles
from cycles._core.amounts import INT64_MAX, Amount
from cycles._errors import ConfigurationError, CyclesError
from cycles.embedded import EmbeddedServer
from cycles.embedded.scopes import derive
from cycles.embedded.windows import Window
from cycles.proxy._clients import LedgerClient
from cycles.proxy._kept import SCOPE, kept_file
from cycles.proxy._shares import Share

TENANT: Final = "run"
_USD: Final = "USD_MICROCENTS"
MODEL_CALLS: Final = "llm."
"""The kinds of actions that the proxy has."""
LIST_S: Final = 2.0
"""How long a request for the reservations of a server may take at the end of a run."""
MOST_LISTED: Final = 1_000


class RunLedger:
    """The budgets of a run.

    Attributes:
        client: Reserves and settles the calls.
        budget: What the run may spend, for its summary; None: what the server allows.
        limit: What the run may spend beside the budgets of the server; None: no such limit.
        environment: The variables with which the command reaches the same budgets.
        unit: The unit of the run.
        kept: The name of the file of the run's own ledger; None: it is in memory, or there is none.
        forwarding: Meters calls that another proxy of Cycles charges, without charging them; None if there are none.
    """

    def __init__(self, client: cycles.Cycles, budget: Amount | None, limit: Amount | None, unit: str) -> None:
        self.client = client
        self.unit = unit
        self.forwarding: cycles.Cycles | None = None
        self.budget = budget
        self.limit = limit
        config = client.config
        self.environment = {"CYCLES_BASE_URL": str(config.base_url), "CYCLES_API_KEY": str(config.api_key)}
        if config.tenant is not None:
            self.environment["CYCLES_TENANT"] = config.tenant
        self._closing = ExitStack()
        self._since = datetime.now(UTC)
        self._counting: _Counting | None = None
        self._own: EmbeddedServer | None = None
        self.kept: str | None = None
        self._shared: set[str] = set()

    @property
    def clients(self) -> list[cycles.Cycles]:
        """The clients that meter the calls."""
        return [self.client] if self.forwarding is None else [self.client, self.forwarding]

    def note_of_others(self, own: Container[str] | None) -> str | None:
        """Return what to say about who else has charged calls of the run; None if there is nothing to say.

        Args:
            own: Ids of the reservations of the proxy; None: the command does not know the server.
        """
        if self._counting is not None:
            count = self._counting.reservations
            came = f"{count} {'reservation' if count == 1 else 'reservations'} came from the command itself"
            return f"{came}: what it also guards was charged twice" if count else None
        if self.forwarding is not None:
            return "the run around this one charged the calls: its summary contains them"
        if own is None or not (count := self._others_on_server(own)):
            return None
        more = "1 more reservation was" if count == 1 else f"{count} more reservations were"
        made = f"{more} made for model calls on the server"
        return f"{made}: those that the command made for the same calls were charged twice; see --no-cycles-env"

    def _others_on_server(self, own: Container[str]) -> int:
        """Count what a server has that was made since the run began: other processes may have made it."""
        since_ms = self._since.timestamp() * 1000
        changes: dict[str, Any] = {"journal": False, "timeout": LIST_S, "connect_timeout": LIST_S, "max_retries": 0}
        with contextlib.suppress(CyclesError), cycles.Cycles(evolve(self.client.config, **changes)) as client:
            return sum(
                row.action.kind.startswith(MODEL_CALLS) and row.reservation_id not in own
                for row in islice(client.reservations(created_from=self._since), MOST_LISTED)
                if row.created_at_ms >= since_ms  # a server may ignore the filter
            )
        return 0

    @property
    def own_scope(self) -> str | None:
        """The scope whose budget is that of the run; None: a server has the budgets."""
        return None if self._own is None else SCOPE

    def kept_total(self) -> dict[str, Any] | None:
        """Return what all runs of the kept ledger have spent, as JSON; None if it is not kept."""
        if self._own is None or self.kept is None:
            return None
        balance = self._own.ledger.balance(SCOPE, self.unit)
        spent, debt, budget = balance.spent, balance.debt, balance.allocated
        assert spent is not None  # the ledger fills every field
        assert debt is not None
        assert budget is not None
        found = {"name": self.kept, "spent": (spent + debt).to_dict(), "budget": budget.to_dict()}
        window = self._own.ledger.window(SCOPE, self.unit)
        if window is None:
            return found
        now: dict[str, Any] = {"window": window.period, "timezone": window.timezone, "ends_at_ms": window.ends_ms}
        for forecast in self._own.ledger.forecasts():
            if (forecast.scope, forecast.unit) == (SCOPE, self.unit):
                now["exhausted_at_ms"] = forecast.exhausted_at_ms
        return {**found, "window": now}

    def left(self) -> Amount | None:
        """Return what is left of the run's own ledger; None if there is none."""
        if self._own is None or self.budget is None:
            return None
        return Amount(self.unit, max(0, self._own.ledger.balance(SCOPE, self.unit).remaining.amount))

    def add_share(self, share: Share, subject: Mapping[str, Any]) -> None:
        """Give a share a budget in the run's own ledger, beside the limit that the proxy keeps.

        Shares of different parents may have the same name, and so the same scope: their limits add up. In a ledger that
        is kept, what earlier runs have spent does not count.
        """
        if self._own is None:
            return
        scope = derive({**subject, "tenant": TENANT, "toolset": None})[-1]
        ledger, limit = self._own.ledger, share.limit.amount
        if scope in self._shared:
            ledger.fund(scope, limit)
        elif _has_budget(self._own, scope, self.unit):
            spent = ledger.balance(scope, self.unit).spent or Amount(self.unit, 0)
            # Replaced and not changed: one that was overspent would admit no call.
            ledger.set_budget(scope, limit + spent, spent=spent.amount)
        else:
            ledger.set_budget(scope, limit)
        self._shared.add(scope)

    def has_budget(self, subject: Mapping[str, Any]) -> bool:
        """Return whether the run's own ledger has a budget for exactly this subject, such as that of a share."""
        if self._own is None:
            return False
        return _has_budget(self._own, derive({**subject, "tenant": TENANT, "toolset": None})[-1], self.unit)

    def close(self) -> None:
        """Close the run's own server."""
        self._closing.close()


def open_ledger(
    config: cycles.Config,
    budget: Amount | None,
    *,
    embedded: bool,
    keep: str | None,
    nested: bool = False,
    unit: str | None = None,
    window: Window | None = None,
    unlimited: bool = False,
) -> RunLedger:
    """Return the budgets of a run.

    Args:
        config: The configured server; its members may be missing.
        budget: What the run may spend.
        embedded: Use an embedded server, also if another one is configured.
        keep: The name of the file in which the embedded server keeps its ledger; None keeps it in memory.
        nested: Requests go to the proxy of another run, which charges them to the configured server.
        unit: The unit of the run; None: that of `budget`, or of the only budget of the file, else USD.
        window: The window of `budget`, in a ledger that is kept.
        unlimited: There is no limit; what is spent is only kept.

    Raises:
        ConfigurationError: if there is no budget, or the file of `keep` cannot be used.
    """
    unit = budget.unit if budget is not None else unit
    if config.base_url and not embedded and keep is None:
        ledger = RunLedger(cycles.Cycles(config), budget, budget, unit or _USD)
        if nested:
            _forward(ledger)
        return ledger
    if unlimited:
        budget = Amount(unit or _USD, INT64_MAX)
    ledger = _own_ledger(budget, unit, None if keep is None else kept_file(keep))
    ledger.kept = keep
    if budget is not None and ledger._own is not None:
        ledger._own.ledger.set_window(SCOPE, window, budget.unit)
    return ledger


def _own_ledger(budget: Amount | None, unit: str | None, path: Path | None) -> RunLedger:
    try:
        server = EmbeddedServer(path=path)
    except ConfigurationError as error:
        if "another server has" in str(error):
            raise ConfigurationError(f"another run has {path} open: wait for its end, or pass another --keep") from None
        raise
    unit = unit or next((each for each in (_USD, "TOKENS") if _has_budget(server, SCOPE, each)), _USD)
    known = _has_budget(server, SCOPE, unit)
    if budget is not None:
        _set_budget(server, budget, known=known)
    elif not known or server.ledger.balance(SCOPE, unit).allocated == Amount(unit, INT64_MAX):
        server.close()
        example = "5USD" if unit == _USD else "50000TOKENS"
        raise ConfigurationError(
            f"there is no budget: pass --budget {example}, or set CYCLES_BASE_URL and CYCLES_API_KEY"
        )
    else:
        budget = server.ledger.balance(SCOPE, unit).allocated
    shown = None if budget == Amount(unit, INT64_MAX) else budget
    ledger = RunLedger(_client_of(server), shown, None, unit)
    ledger._closing.callback(server.close)
    ledger._own = server
    ledger._counting = _Counting(server)
    url = ledger._closing.enter_context(_listener(ledger._counting))
    ledger.environment = {
        "CYCLES_BASE_URL": url,
        "CYCLES_API_KEY": server.api_key_for(TENANT),
        "CYCLES_TENANT": TENANT,
    }
    return ledger


def _forward(ledger: RunLedger) -> None:
    """Meter the calls that another proxy charges in a ledger without a limit: the server would charge them twice."""
    server = EmbeddedServer({SCOPE: Amount(ledger.unit, INT64_MAX)})
    ledger._closing.callback(server.close)
    ledger.forwarding = _client_of(server)


def _client_of(server: EmbeddedServer) -> cycles.Cycles:
    direct = LedgerClient(server)
    return server.client(tenant=TENANT, async_http_client=direct)


def _has_budget(server: EmbeddedServer, scope: str, unit: str) -> bool:
    return bool(server.ledger.budgets_of([scope], unit))


def _set_budget(server: EmbeddedServer, budget: Amount, *, known: bool) -> None:
    if not known:
        server.ledger.set_budget(SCOPE, budget)
        return
    balance = server.ledger.balance(SCOPE, budget.unit)
    spent, debt = balance.spent, balance.debt
    assert spent is not None  # the ledger fills every field
    assert debt is not None
    server.ledger.set_budget(SCOPE, budget, spent=spent.amount, debt=debt.amount)


class _Counting:
    """Counts the reservations that reach the run's own server over HTTP: the proxy's own do not."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.reservations = 0

    def handle(self, request: Any) -> Any:
        if request.method == "POST" and request.path == "/v1/reservations":
            self.reservations += 1
        return self._server.handle(request)


def _listener(handler: _Counting) -> Any:
    from cycles.embedded.serve import Listener

    return Listener(handler, "127.0.0.1", 0)
