"""What a process in a run asks the proxy around it: for a share, what is left, and what a share has used."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import httpx

from cycles._core.amounts import Amount
from cycles._errors import ConfigurationError, InvalidRequestError, TransportError

PROXY_URL: Final = "CYCLES_PROXY_URL"
_TIMEOUT_S: Final = 30.0


def ask(url: str, share: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what the run or the share of an address has used, and what is left; with `share`, make one of it.

    Raises:
        ConfigurationError: The address is not a URL.
        InvalidRequestError: The proxy rejects the request, for example because the name of the share is wrong.
        TransportError: The proxy does not respond.
    """
    method = "GET" if share is None else "POST"
    try:
        response = httpx.request(method, f"{url}/shares", json=share, timeout=_TIMEOUT_S, trust_env=False)
        document = response.json()
        message = None if response.is_success else document["error"]["message"]
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"{PROXY_URL} is {url!r:.80}, which is not an address: unset it; cycles run sets it for its command"
        ) from error
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise TransportError(
            f"the proxy of the run around this process did not respond; has that run ended? {error!r:.200}", cause=error
        ) from error
    if message is not None:
        raise InvalidRequestError(message)
    return dict(document)


def part_of_run(percentage: str, environ: Mapping[str, str]) -> Amount:
    """Return a part of what the innermost limit around this process has left, rounded down.

    Raises:
        ConfigurationError: if there is no run around this process, or it has no limit.
    """
    url = environ.get(PROXY_URL)
    if not url:
        raise ConfigurationError(
            f"--budget {percentage} is a part of the run around this one, and there is none: pass --budget 5USD"
        )
    remaining = ask(url)["remaining"]
    if remaining is None:
        raise ConfigurationError(
            f"--budget {percentage} is a part of a limit, and the run around this one has none: pass 5USD"
        )
    return Amount(remaining["unit"], int(remaining["amount"] * Fraction(percentage.removesuffix("%").strip()) / 100))
