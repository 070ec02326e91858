"""`EmbeddedServer`: a ledger with HTTP rules, faults and transports. For development and tests, not production."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import httpx
from attrs import evolve

from cycles._core.amounts import Amount
from cycles._errors import InvalidRequestError
from cycles._version import public
from cycles.embedded.admin import AdminRoutes
from cycles.embedded.admin_access import AdminAccess
from cycles.embedded.admin_state import Result
from cycles.embedded.clock import Clock, SystemClock
from cycles.embedded.faults import Fault, Faults
from cycles.embedded.http import Application, Request, Response
from cycles.embedded.ledger import Ledger
from cycles.embedded.operator import Operator
from cycles.embedded.records import Body
from cycles.embedded.request_log import ReceivedRequest, RequestLog
from cycles.embedded.routes import find, operation_of
from cycles.embedded.tables import Tables
from cycles.embedded.transports import EmbeddedTransport
from cycles.embedded.webhook_routes import WebhookRoutes
from cycles.embedded.webhooks import Webhooks
from cycles.embedded.windows import Window

if TYPE_CHECKING:
    import cycles
    from cycles.embedded.dashboard.routes import Dashboard
    from cycles.embedded.evidence import EvidenceSigner
    from cycles.embedded.serve import Listener

Budgets: TypeAlias = Mapping[str, Amount | Window | Iterable[Amount | Window]]

# Clients in this process need a base URL; names below .invalid never resolve (RFC 2606).
_HEALTH: Final = ("/actuator/health/liveness", "/actuator/health/readiness")
BASE_URL: Final = "http://embedded.cycles.invalid"
DEFAULT_TENANT: Final = "default"
PROTOCOLS: Final = ("0.1.25", "0.1.26")


class EmbeddedServer:
    """A Cycles server inside this process.

    Args:
        budgets: An Amount, or several in different units, per scope (``{"tenant:acme": usd(10)}``); or `cycles.window`
            of one, which begins again at each edge. Budgets that the file already has stay unchanged.
        path: SQLite file of the ledger; None keeps it in memory.
        clock: Source of the time; `ManualClock` for tests, the machine's clock by default.
        admin_api_key: The admin key: for the admin operations of `cycles.Admin`, and for list, get and release of
            reservations. None allows no admin calls.
        api_keys: Further API keys and their tenants.
        evidence_key: Seed of an Ed25519 key, 32 bytes or 64 hex digits: the server signs evidence of its decisions.
        server_id: The issuer that evidence names; the address of each request with ``/v1`` by default.
        protocol: ``"0.1.25"``, or ``"0.1.26"`` with action kinds, policies, quotas and observe mode.

    Raises:
        InvalidRequestError: (a ValueError) if a scope is not of the form ``tenant:acme/agent:bot``.
        ConfigurationError: if the file is not a ledger, or another server has it open.
    """

    def __init__(
        self,
        budgets: Budgets | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
        admin_api_key: str | None = None,
        api_keys: Mapping[str, str] | None = None,
        evidence_key: bytes | str | None = None,
        server_id: str | None = None,
        protocol: str = PROTOCOLS[0],
    ) -> None:
        if protocol not in PROTOCOLS:
            raise InvalidRequestError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r:.80}")
        clock, is_next = clock or SystemClock(), protocol == PROTOCOLS[1]
        self._signer = None if evidence_key is None else _signer(evidence_key, clock, server_id)
        self._ledger = Ledger(Tables(_store(path)), clock, has_policies=is_next)
        self._application = Application(self._ledger, admin_api_key, is_next=is_next)
        self.webhooks: Webhooks = Webhooks(clock)
        access = AdminAccess(self._ledger, admin_api_key)
        self._access = access
        self._webhook_routes = WebhookRoutes(self.webhooks, access)
        self._admin_routes = AdminRoutes(access, self.webhooks, is_next=is_next)
        self._admin_api_key = admin_api_key
        self._clock = clock
        self._dashboard: Dashboard | None = None
        self._dashboard_page: str | None = None
        self._closed = False
        self.ledger: Operator = Operator(self._ledger)
        self.faults: Faults = Faults()
        self.requests: RequestLog = RequestLog()
        self._named_tenants = _tenants(budgets or {})
        try:
            self._seed(budgets or {}, api_keys or {})
        except InvalidRequestError:
            self.close()
            raise
        self._ledger.tables.observers.append(self.webhooks.on_change)

    def _seed(self, budgets: Budgets, api_keys: Mapping[str, str]) -> None:
        kept = set(self._ledger.tables.budgets)
        for scope, amounts in budgets.items():
            for given in _listed(scope, amounts):
                amount = given.amount if isinstance(given, Window) else given
                if (scope.lower(), str(amount.unit)) not in kept:
                    self.ledger.set_budget(scope, amount)
                    if isinstance(given, Window):
                        self.ledger.set_window(scope, given, str(amount.unit))
        for key, tenant in api_keys.items():
            self.ledger.set_api_key(key, tenant=tenant)

    # --- requests -----------------------------------------------------------------------------------------

    def handle(self, request: Request) -> tuple[Response | None, Fault | None]:
        """Return the response (None if a fault kept the request from the ledger) and the fault, if there is one."""
        if self._closed:
            return None, None
        operation = operation_of(request.method, request.path)
        fault = self.faults.take(operation)
        if fault is not None and fault.lost and not fault.reaches_ledger:
            return None, fault
        response = None
        feed, started_s = None if self._dashboard is None else self._dashboard.feed, time.perf_counter()
        if feed is not None:
            feed.started()
        if fault is None or fault.reaches_ledger:
            response = self._respond(request)
        if feed is not None:
            feed.finished(request, operation, response, fault, 1000 * (time.perf_counter() - started_s))
        self.requests.add(
            ReceivedRequest(
                operation=operation,
                method=request.method,
                target=request.target,
                headers=request.headers,
                body=request.body,
                status=None if response is None else response.status,
            )
        )
        return (response if fault is None else _replaced(response, fault)), fault

    def _respond(self, request: Request) -> Response:
        if request.path in _HEALTH and request.method in ("GET", "HEAD"):
            return Response(200, {"Content-Type": "application/json"}, b'{"status":"UP"}')
        if self._webhook_routes.serves(request):
            return self._webhook_routes.handle(request)
        handler = self._admin_routes if self._admin_routes.serves(request.path) else self._application
        with self.webhooks.during(request) as happening:
            response = handler.handle(request)
            happening.request_id = response.headers.get("X-Request-Id")
            happening.trace_id = response.headers.get("X-Cycles-Trace-Id")
        if response.status == 200 and request.headers.get("x-admin-api-key"):
            self._log_release(request, response)
        return response if self._signer is None else self._signer.attested(request, response)

    def _log_release(self, request: Request, response: Response) -> None:
        """Write to the audit log that an operator has released a reservation."""
        route = find(request.method, request.path)
        if route.operation != "release" or route.path_id is None:
            return
        names = {"request_id": "X-Request-Id", "trace_id": "X-Cycles-Trace-Id"}
        ids = {name: response.headers[header] for name, header in names.items()}
        with self._ledger.locked():
            row = self._ledger.tables.reservations.get((route.path_id,))
            audit = {"actor_type": "admin_on_behalf_of", **_reason(request)}
            about = ("reservation", route.path_id)
            result = Result(200, None, None if row is None else row.tenant, about, audit)
            self._access.log("releaseReservation", request, result, None, ids)

    def listen(self, host: str = "127.0.0.1", port: int = 0, dashboard: bool | None = None) -> Listener:
        """Serve over real HTTP: ``with server.listen() as url: ...``. Leaving closes the socket, not the ledger.

        Args:
            host: Loopback by default. Any process that can reach another address can use this server.
            port: 0 for any free port.
            dashboard: Serve the dashboard at ``/dashboard``. By default only if the host is loopback.

        Raises:
            ConfigurationError: if the extra `embedded` is not installed, or the address is not available.
        """
        from cycles.embedded.dashboard.app import DashboardApp
        from cycles.embedded.dashboard.checks import is_loopback
        from cycles.embedded.serve import Listener

        if not (is_loopback(host) if dashboard is None else dashboard):
            return Listener(self, host, port)
        return Listener(self, host, port, DashboardApp(self._opened_dashboard(), host), self._announced)

    def _opened_dashboard(self) -> Dashboard:
        from cycles.embedded.dashboard.routes import Dashboard

        if self._dashboard is None:
            self._dashboard = Dashboard(self.ledger, self.faults, self._clock, self._admin_api_key)
        return self._dashboard

    def _announced(self, page: str | None) -> None:
        self._dashboard_page = page

    @property
    def dashboard_url(self) -> str | None:
        """Return the address of the dashboard with its token in the fragment, or None if it is not served now."""
        if self._dashboard is None or self._dashboard_page is None:
            return None
        return f"{self._dashboard_page}#{self._dashboard.token}"

    def transport(self) -> EmbeddedTransport:
        """Return an httpx transport to this server, for blocking and asyncio clients."""
        return EmbeddedTransport(self)

    def client(self, *, tenant: str | None = None, **options: Any) -> cycles.Cycles:
        """Return a client of this server in this process, for blocking and asyncio code.

        Args:
            tenant: Tenant of its key and its subjects; the first tenant of the budgets by default.
            options: Options of `cycles.Cycles`. The journal is off unless `journal`, `journal_dir` or
                `journal_store` is passed.
        """
        import cycles

        tenant = tenant if tenant is not None else self.tenant
        if "journal_dir" not in options and "journal_store" not in options:
            options.setdefault("journal", False)
        options.setdefault("base_url", BASE_URL)
        options.setdefault("api_key", self.api_key_for(tenant))
        options.setdefault("http_client", httpx.Client(transport=self.transport()))
        options.setdefault("async_http_client", httpx.AsyncClient(transport=self.transport()))
        return cycles.Cycles(tenant=tenant, **options)

    # --- for tests ----------------------------------------------------------------------------------------------

    @property
    def tenants(self) -> list[str]:
        """Return the tenants of the budgets, first those of `budgets=` with their original case."""
        found: dict[str, str] = {}
        for tenant in [*self._named_tenants, *self.ledger.tenants()]:
            found.setdefault(tenant.lower(), tenant)
        return list(found.values())

    @property
    def tenant(self) -> str:
        """Return the first tenant of the budgets, or ``default`` if there is none."""
        return next(iter(self.tenants), DEFAULT_TENANT)

    @property
    def api_key(self) -> str:
        """Return a working key of `tenant`."""
        return self.api_key_for(self.tenant)

    def api_key_for(self, tenant: str) -> str:
        """Return a working key of any tenant, the same one each time."""
        return self.ledger.api_key_for(tenant)

    def spent(self, scope: str, unit: str | None = None) -> Amount:
        """Return the spent amount of a scope. `unit` may be omitted if the scope has one budget.

        Raises:
            KeyError: if the scope has no budget (in that unit).
        """
        spent = self.ledger.balance(scope, unit).spent
        assert spent is not None  # `ledger.balance` fills every field
        return spent

    # --- closing -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the store. Later requests get no connection. Closing twice is allowed."""
        if not self._closed:
            self._closed = True
            if self._dashboard is not None:
                self._dashboard.feed.close()
            self.webhooks.close()
            self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        self.close()


def _signer(key: bytes | str, clock: Clock, server_id: str | None) -> EvidenceSigner:
    from cycles.embedded.evidence import EvidenceSigner

    return EvidenceSigner(key, clock, server_id)


def _store(path: str | os.PathLike[str] | None) -> Any:
    if path is None:
        return None
    from cycles.embedded.store import SqliteStore

    return SqliteStore(path)


def _listed(scope: str, amounts: Amount | Window | Iterable[Amount | Window]) -> list[Amount | Window]:
    listed = list(amounts) if isinstance(amounts, Iterable) else [amounts]
    for amount in listed:
        if not isinstance(amount, Amount | Window):
            raise InvalidRequestError(
                f"budgets[{scope!r:.120}] is not an amount: {amount!r:.80}; pass one such as cycles.usd(10)"
            )
    return listed


def _tenants(budgets: Budgets) -> list[str]:
    """Return the tenants with their original case: keys and subjects compare case-sensitively, scopes do not."""
    outermost = (scope.partition("/")[0].partition(":") for scope in budgets)
    return [value for level, _, value in outermost if level == "tenant"]


def _reason(request: Request) -> Body:
    """Return the reason in the body of a release that was accepted."""
    reason = json.loads(request.body or b"{}").get("reason")
    return {} if reason is None else {"reason": reason}


def _replaced(response: Response | None, fault: Fault) -> Response:
    """Return the response with the replacements of a fault. Without a response, make one."""
    response = response or Response(200, {"Content-Type": "application/json"}, b"")
    if fault.status is not None:
        response = evolve(response, status=fault.status)
    if fault.body is not None:
        response = evolve(response, body=fault.body)
    return evolve(response, headers=response.headers | dict(fault.headers))


public(EmbeddedServer)
