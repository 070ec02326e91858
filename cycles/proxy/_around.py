"""What a run inside another run asks the proxy around it: what is left there, and what a share has used."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import httpx

from cycles._core.amounts import Amount
from cycles._errors import ConfigurationError, TransportError

_TIMEOUT_S: Final = 30.0
_VARIABLE: Final = "CYCLES_PROXY_URL"


def state_of(url: str) -> dict[str, Any]:
    """Return what the run or the share of an address has used, and what is left of it.

    Raises:
        TransportError: if the proxy does not respond.
    """
    try:
        response = httpx.get(f"{url}/shares", timeout=_TIMEOUT_S, trust_env=False)
        response.raise_for_status()
        document: dict[str, Any] = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise TransportError(
            f"the proxy of the run around this one did not respond: {error!r:.200}", cause=error
        ) from error
    return document


def part_of_run(percentage: str, environ: Mapping[str, str]) -> Amount:
    """Return a part of what the innermost limit around this process has left, rounded down.

    Raises:
        ConfigurationError: if there is no run around this process, or it has no limit.
    """
    url = environ.get(_VARIABLE)
    if not url:
        raise ConfigurationError(
            f"--budget {percentage} is a part of the run around this one, and there is none: pass --budget 5USD"
        )
    remaining = state_of(url)["remaining"]
    if remaining is None:
        raise ConfigurationError(
            f"--budget {percentage} is a part of a limit, and the run around this one has none: pass 5USD"
        )
    return Amount(remaining["unit"], int(remaining["amount"] * Fraction(percentage.removesuffix("%").strip()) / 100))
