"""`cycles proxy`: the proxy of `cycles run` as a service."""

from __future__ import annotations

import shlex
import signal
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._output import say
from cycles.cli._proxying import make_run, proxy_options
from cycles.cli._warnings import gathered_warnings

if TYPE_CHECKING:
    from cycles.proxy._run import Ended, Run


def _address(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    try:
        found = urlsplit(f"//{value}")
        host, port = found.hostname, found.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise click.BadParameter(f"{value!r:.80} is not HOST:PORT; write it like 127.0.0.1:8790", ctx, param)
    return host, port


@frame.command("proxy")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8790",
    show_default=True,
    callback=_address,
    help="Where the proxy listens; port 0 is any free port.",
)
@click.option(
    "--proxy-key", metavar="KEY", envvar="CYCLES_PROXY_KEY", help="The key that requests need; required off loopback."
)
@click.option("--tunnel", is_flag=True, help="Also be an HTTPS proxy: reject connections that would not be charged.")
@proxy_options
def command(cli: Cli, listen: tuple[str, int], proxy_key: str | None, **options: Any) -> int:
    """Serve the proxy of `cycles run` until SIGTERM or Ctrl-C."""
    host = listen[0]
    if not proxy_key and not _is_loopback(host):
        raise click.UsageError(f"{host} is not a loopback address: pass --proxy-key KEY, or set CYCLES_PROXY_KEY")
    if options["on_denied"] == "stop":
        raise click.UsageError("--on-denied stop needs a command: use cycles run, or leave the option out")
    with gathered_warnings(verbose=options["verbose"]):
        ended = _serve(cli, listen, proxy_key or None, options)
    if cli.out.json:
        cli.out.document(ended.document)
    else:
        for message in ended.lines:
            say(f"cycles: {message}")
    return 0


def _serve(cli: Cli, listen: tuple[str, int], key: str | None, options: dict[str, Any]) -> Ended:
    run = make_run(cli, options, key=key)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return run.serve(*listen, lambda url: _announce(cli, run, url, key), stop)


def _is_loopback(host: str) -> bool:
    from cycles.proxy._targets import is_loopback

    return is_loopback(host)


def _announce(cli: Cli, run: Run, url: str, key: str | None) -> None:
    if cli.out.json:
        cli.out.document({"listening": url, "base_urls": run.variables(url, None)})
        return
    from cycles.proxy._environment import SHELL_KEY

    marker = None if key is None else SHELL_KEY
    for variable, value in run.variables(url, marker, with_proxy_url=True).items():
        quoted = shlex.quote(value) if key is None else f'"{value}"'
        cli.out.line(f"export {variable}={quoted}")
