"""`cycles.delegate`: a share of the budget of `cycles run` for another agent."""

from __future__ import annotations

import os
from typing import Self

from attrs import field, frozen

from cycles._core.amounts import Amount
from cycles._errors import ConfigurationError, InvalidRequestError
from cycles._version import public


@frozen
class Share:
    """A share of a run's budget. A ``with`` block around it changes nothing: a share lasts as long as its run.

    Attributes:
        name: Its name.
        proxy_url: The address of the proxy with the secret of this share.
        environment: All variables of this process, with those that bring the calls of a child to this share.
    """

    name: str
    proxy_url: str = field(repr=False)
    environment: dict[str, str] = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        pass


def delegate(name: str, limit: Amount | str) -> Share:
    """Return a share of the budget of the `cycles run` around this process, or of the share in which it runs.

    What is spent with its environment also counts for the limits around it. The same name and limit return the same
    share. A share limits and does not hold: other calls may use the budget first.

    ```python
    def research() -> None:
        with cycles.delegate("researcher", cycles.usd(1)) as share:
            subprocess.run(["python", "researcher.py"], env=share.environment, check=True)
    ```

    Args:
        name: 1 to 64 characters of ``a-z0-9_.-``.
        limit: What it may spend, such as ``cycles.usd(1)``, or a part of what is left now, such as ``"20%"``.

    Raises:
        ConfigurationError: This process does not run in `cycles run`.
        InvalidRequestError: The name or the limit is wrong, or the share has another limit.
        TransportError: The proxy does not respond.
    """
    from cycles.proxy._around import PROXY_URL, ask

    url = os.environ.get(PROXY_URL)
    if not url:
        raise ConfigurationError(
            f"{PROXY_URL} is not set, so there is no budget to share: start this program with "
            "cycles run --budget 5USD -- COMMAND"
        )
    made = ask(url, {"name": name, "limit": _written(limit)})
    return Share(made["name"], made["proxy_url"], {**os.environ, **made["environment"]})


def _written(limit: Amount | str) -> str:
    if isinstance(limit, str):
        return limit
    if not isinstance(limit, Amount):
        raise InvalidRequestError(f"limit must be an amount: {limit!r:.80}; pass one such as cycles.usd(1), or '20%'")
    return f"{limit.amount} {limit.unit}"


public(Share, delegate)
