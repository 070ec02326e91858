"""Which budgets a run has: those of a configured server, or an embedded server of the run itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import cycles
from cycles._core.amounts import Amount
from cycles._errors import ConfigurationError
from cycles.embedded import EmbeddedServer
from cycles.proxy._clients import LedgerClient

TENANT: Final = "run"
SCOPE: Final = f"tenant:{TENANT}"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class RunLedger:
    """The budgets of a run.

    Attributes:
        client: Reserves and settles the calls.
        budget: What the run may spend, for its summary; None: what the server allows.
        limit: What the run may spend beside the budgets of the server; None: no such limit.
        environment: The variables with which the command reaches the same budgets.
    """

    def __init__(self, client: cycles.Cycles, budget: Amount | None, limit: Amount | None) -> None:
        self.client = client
        self.budget = budget
        self.limit = limit
        config = client.config
        self.environment = {"CYCLES_BASE_URL": str(config.base_url), "CYCLES_API_KEY": str(config.api_key)}
        if config.tenant is not None:
            self.environment["CYCLES_TENANT"] = config.tenant
        self._closing = ExitStack()
        self._others: Callable[[], int] = lambda: 0

    @property
    def other_reservations(self) -> int:
        """Reservations of the run's own server that are not the proxy's."""
        return self._others()

    def close(self) -> None:
        """Close the run's own server."""
        self._closing.close()


def open_ledger(
    config: cycles.Config,
    budget: Amount | None,
    *,
    embedded: bool,
    keep: str | None,
    approval: Mapping[str, Any] | None = None,
) -> RunLedger:
    """Return the budgets of a run.

    Args:
        config: The configured server; its members may be missing.
        budget: What the run may spend.
        embedded: Use an embedded server, also if another one is configured.
        keep: The name of the file in which the embedded server keeps its ledger; None keeps it in memory.
        approval: The settings `approve` and `approve_above` of the client.

    Raises:
        ConfigurationError: if there is no budget, or the file of `keep` cannot be used.
    """
    if budget is not None and budget.unit != "USD_MICROCENTS":
        raise ConfigurationError(f"--budget must be in USD, got {budget}: write it like 5USD")
    settings: dict[str, Any] = dict(approval or {})
    if config.base_url and not embedded and keep is None:
        return RunLedger(cycles.Cycles(config, **settings), budget, budget)
    return _own_ledger(budget, None if keep is None else kept_file(keep), settings)


def kept_file(name: str) -> Path:
    """Return the file of ``--keep NAME`` in the user state directory; the directory is made.

    Raises:
        ConfigurationError: if it is no name, or the directory cannot be made.
    """
    import platformdirs

    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"--keep must be a name of letters, digits, dots and dashes, got {name!r:.80}")
    directory = platformdirs.user_state_path("cycles-sdk", appauthor=False) / "runs"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--keep cannot make the directory {directory}: {error.strerror}") from error
    return directory / f"{name}.db"


def _own_ledger(budget: Amount | None, path: Path | None, approval: Mapping[str, Any]) -> RunLedger:
    try:
        server = EmbeddedServer(path=path)
    except ConfigurationError as error:
        if "another server has" in str(error):
            raise ConfigurationError(f"another run has {path} open: wait for its end, or pass another --keep") from None
        raise
    known = SCOPE in server.ledger.scopes()
    if budget is not None:
        _set_budget(server, budget, known=known)
    elif not known:
        server.close()
        raise ConfigurationError("there is no budget: pass --budget 5USD, or set CYCLES_BASE_URL and CYCLES_API_KEY")
    else:
        budget = server.ledger.balance(SCOPE, "USD_MICROCENTS").allocated
    direct = LedgerClient(transport=server.transport())
    ledger = RunLedger(server.client(tenant=TENANT, async_http_client=direct, **approval), budget, None)
    ledger._closing.callback(server.close)
    counting = _Counting(server)
    url = ledger._closing.enter_context(_listener(counting))
    ledger.environment = {
        "CYCLES_BASE_URL": url,
        "CYCLES_API_KEY": server.api_key_for(TENANT),
        "CYCLES_TENANT": TENANT,
    }
    ledger._others = lambda: counting.reservations
    return ledger


def _set_budget(server: EmbeddedServer, budget: Amount, *, known: bool) -> None:
    if not known:
        server.ledger.set_budget(SCOPE, budget)
        return
    balance = server.ledger.balance(SCOPE, "USD_MICROCENTS")
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
