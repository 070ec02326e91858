"""The checks of `cycles doctor` that need the server. They send reads only."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from attrs import evolve

import cycles
from cycles.cli import _format
from cycles.cli._checks import Check, failed, is_loopback
from cycles.cli._frame import NO_RESPONSE, USAGE, status_of
from cycles.cli._options import LEVELS

NAMES: Final = ("dns", "tls", "authentication", "clock", "latency", "budget", "features")
_REQUESTS: Final = 5
_LARGEST_CLOCK_DIFFERENCE_S: Final = 60
_SOON_DAYS: Final = 7
_MOST_SHOWN: Final = 5  # budgets: a tenant may have thousands below it


def skipped(reason: str) -> list[Check]:
    """Return all checks of this file as skipped."""
    return [Check(name, "skip", reason) for name in NAMES]


def run(config: cycles.Config) -> Iterator[Check]:
    """Yield the checks of the configured server."""
    base_url, _ = config.endpoint()
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    yield _dns(host, port)
    try:
        context = httpx.create_ssl_context()  # as the client does
    except (OSError, ValueError) as error:
        named = " or ".join(name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ)
        detail = f"certificates cannot be loaded from {named or 'this machine'}: {error}"
        yield Check("tls", "fail", detail, "name a readable PEM file or unset it", USAGE)
        yield from (Check(name, "skip", "no certificate can be checked") for name in NAMES[2:])
        return
    yield _tls(parts.scheme, host, port, config.timeout, context)
    measured = _Measured()
    with (
        httpx.Client(verify=context, event_hooks={"response": [measured.note]}) as http,
        cycles.Cycles(_whole_tree(config), http_client=http) as client,
    ):
        authentication = _authentication(client, measured)
        yield authentication
        if authentication.status == "fail":
            yield from (Check(name, "skip", "the server accepted no request") for name in NAMES[3:])
            return
        yield _clock(measured)
        yield Check("latency", "ok", measured.latency())
        yield _budget(client, config)
        yield _features(client)


def _whole_tree(config: cycles.Config) -> cycles.Config:
    """Return the configuration with the first level of its subject only: a list of balances has no scopes above it."""
    without: dict[str, Any] = dict.fromkeys(list(_levels(config))[1:])
    return evolve(config, journal=False, **without)


class _Measured:
    """The `Date` header and the times of the requests."""

    def __init__(self) -> None:
        self.date: str | None = None
        self.received_at: datetime | None = None
        self.tenant: str | None = None
        self.seconds: list[float] = []

    def note(self, response: httpx.Response) -> None:
        self.received_at = datetime.now(UTC)
        self.date = response.headers.get("Date")
        self.tenant = response.headers.get("X-Cycles-Tenant")

    def latency(self) -> str:
        least, middle = min(self.seconds) * 1000, statistics.median(self.seconds) * 1000
        return f"min {least:.1f} ms, median {middle:.1f} ms of {len(self.seconds)} requests"


def _dns(host: str, port: int) -> Check:
    with contextlib.suppress(ValueError):
        return Check("dns", "skip", f"{ipaddress.ip_address(host)} is an address")
    try:
        found = sorted({str(item[4][0]) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        return Check("dns", "fail", f"{host}: {error.strerror or error}", "correct the host in base_url", NO_RESPONSE)
    return Check("dns", "ok", f"{host}: {', '.join(found)}")


def _tls(scheme: str, host: str, port: int, timeout: float, context: ssl.SSLContext) -> Check:
    if scheme == "http":
        if is_loopback(host):
            return Check("tls", "skip", "plain http on this machine")
        return Check("tls", "fail", f"plain http to {host}: the API key can be read on the way", "use https")
    try:
        with (
            socket.create_connection((host, port), timeout) as connection,
            context.wrap_socket(connection, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert() or {}
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or error
        return Check("tls", "fail", f"{host}: {reason}", "correct the certificate or SSL_CERT_FILE")
    except OSError as error:
        return Check("tls", "fail", f"{host}:{port}: {error}", "start the server or correct base_url", NO_RESPONSE)
    days = int((ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) // 86_400)
    names: Any = certificate.get("issuer", ())
    issuer: dict[str, str] = {name: value for ((name, value),) in names}
    detail = f"issued by {issuer.get('organizationName') or issuer.get('commonName')}, {days} days left"
    if days < _SOON_DAYS:
        return Check("tls", "fail", detail, "renew the certificate")
    return Check("tls", "ok", detail)


def _authentication(client: cycles.Cycles, measured: _Measured) -> Check:
    name = "authentication"
    try:
        for _ in range(_REQUESTS):
            started = time.perf_counter()
            next(client.reservations(limit=1), None)
            measured.seconds.append(time.perf_counter() - started)
    except cycles.CyclesError as error:
        return failed(name, error, "set the API key and the tenant that belong to this server", status_of(error))
    tenant = f" as tenant {measured.tenant}" if measured.tenant else ""
    return Check(name, "ok", f"the server accepts the key{tenant}")


def _clock(measured: _Measured) -> Check:
    try:
        moment = parsedate_to_datetime(measured.date or "")
    except ValueError:
        return Check("clock", "skip", "the server sends no Date header")
    assert measured.received_at is not None
    difference = (measured.received_at - moment).total_seconds()
    if abs(difference) > _LARGEST_CLOCK_DIFFERENCE_S:
        direction = "ahead of" if difference > 0 else "behind"
        shown = _format.duration(int(abs(difference) * 1000))
        return Check("clock", "fail", f"this machine is {shown} {direction} the server", "synchronise the clocks")
    return Check("clock", "ok", f"{abs(difference):.0f} s from the server's Date")


def _budget(client: cycles.Cycles, config: cycles.Config) -> Check:
    """Check the budgets that a reservation of the configured subject is charged to. Others are a note."""
    levels = _levels(config)
    if not levels:
        return Check("budget", "skip", "no subject is configured; set CYCLES_TENANT")
    try:
        found = list(client.balances())
    except cycles.CyclesError as error:
        return failed("budget", error, "create a budget for this subject", status_of(error))
    if not found:
        return Check("budget", "fail", "the subject has no budget", "create one on the server")
    charged = set(accumulate((f"{level}:{value}".lower() for level, value in levels.items()), "{}/{}".format))
    own = [balance for balance in found if balance.scope_path.lower() in charged]
    others = [balance for balance in found if balance.scope_path.lower() not in charged]
    empty, used_up = [list(filter(_is_empty, balances)) for balances in (own, others)]
    if empty or len(used_up) == len(found):
        return Check("budget", "fail", _left(empty or used_up), "fund it; until then reservations are denied")
    note = f"; note: {_left(used_up)}" if used_up else ""
    return Check("budget", "ok", _left(own or [each for each in others if each not in used_up]) + note)


def _levels(config: cycles.Config) -> dict[str, str]:
    return {level: value for level in LEVELS if (value := getattr(config, level))}


def _is_empty(balance: cycles.Balance) -> bool:
    return balance.remaining.amount <= 0 or bool(balance.is_over_limit)


def _left(balances: list[cycles.Balance]) -> str:
    shown = [f"{each.scope_path} {_format.amount_of(each.remaining)} left" for each in balances[:_MOST_SHOWN]]
    more = len(balances) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)


def _features(client: cycles.Cycles) -> Check:
    try:
        keys = len(client.evidence_keys().keys)
    except cycles.NotFoundError:
        keys = 0
    except cycles.CyclesError as error:
        return failed("features", error, "contact the operator of the server", status_of(error))
    evidence = f"signs evidence ({keys} keys)" if keys else "signs no evidence"
    return Check("features", "ok", f"lists reservations, {evidence}, {_action_kinds(client)}")


def _action_kinds(client: cycles.Cycles) -> str:
    try:
        next(client.action_kinds(), None)
    except cycles.CyclesError:  # an older server does not know the path
        return "knows no action kinds"
    return "knows action kinds (protocol 0.1.26)"
