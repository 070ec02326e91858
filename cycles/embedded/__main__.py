"""Run the server as a process for development: ``python -m cycles.embedded``. Ctrl-C and SIGTERM stop it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cycles._errors import ConfigurationError, InvalidRequestError
from cycles.embedded.options import DEFAULT_PORT, budgets_of, export_command, keys_by_tenant, keys_of, stop_signal
from cycles.embedded.server import PROTOCOLS, EmbeddedServer


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"port must be 0 to 65535: {text}; pass 0 for any free port")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cycles.embedded",
        description="A Cycles server for development and tests. Production runs on the Cycles server.",
    )
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="SCOPE=AMOUNT",
        help="budget of a scope, like tenant:acme=10USD or tenant:acme/agent:bot=50000TOKENS; may be repeated",
    )
    parser.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY=TENANT",
        help="an API key and its tenant; may be repeated",
    )
    parser.add_argument("--admin-api-key", metavar="KEY", help="the operator's key for list, get, release and webhooks")
    parser.add_argument(
        "--evidence-key", metavar="HEX", help="seed of an Ed25519 key, 64 hex digits: sign evidence of decisions"
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default=PROTOCOLS[0], help="version of the protocol (default: %(default)s)"
    )
    parser.add_argument("--db", metavar="FILE", help="keep the ledger in this SQLite file (default: in memory)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port, 0 for any (default: %(default)s)")
    return parser


def _announce(server: EmbeddedServer, url: str, own_keys: dict[str, str]) -> None:
    keys = keys_by_tenant(server, own_keys)
    print(f"Cycles embedded server, for development and tests: {url}")
    for tenant, key in keys.items():
        print(f"tenant {tenant}: {key}")
    print(export_command(url, keys), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal stops the process. Return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        keys = keys_of(options.api_key)
        with (
            stop_signal() as stop,
            EmbeddedServer(
                budgets_of(options.budget),
                path=options.db,
                admin_api_key=options.admin_api_key,
                api_keys=keys,
                evidence_key=options.evidence_key,
                protocol=options.protocol,
            ) as server,
        ):
            if not server.ledger.scopes():
                raise ConfigurationError("the ledger has no budget; add one with --budget tenant:acme=10USD")
            with server.listen(options.host, options.port) as url:
                _announce(server, url, keys)
                stop.wait()
    except (ConfigurationError, InvalidRequestError) as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
