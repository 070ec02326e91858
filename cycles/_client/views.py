"""The part of a client that makes views of it, with other defaults, and that describes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Self

from attrs import fields_dict

from cycles._client.async_operations import AsyncOperations
from cycles._client.call_options import ViewOptions
from cycles._client.options import AnySubject
from cycles._client.reservation import RequestCache
from cycles._config import Config, LeasePolicy
from cycles._core.subjects import LEVELS, Subject
from cycles._version import PROTOCOL_VERSION, __version__, readable

_SHOWN_ELSEWHERE: Final = ("base_url", "api_key", "default_headers", *LEVELS)


class MakesViews:
    """The part of a client that makes views of it.

    Attributes:
        aio: The operations as coroutines.
    """

    _config: Config
    _options: ViewOptions
    _request_cache: RequestCache
    _root: Self | None
    _http_clients: tuple[Any, Any]
    _closed_in: int | None
    aio: AsyncOperations

    def with_options(
        self,
        *,
        timeout: float | None = None,
        subject: AnySubject = None,
        overage_policy: str | None = None,
        lease_policy: LeasePolicy | None = None,
        max_retries: int | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a view of this client with other defaults. It shares connections, journal and background worker.

        Closing the view closes the client. A view of a view adds to its options.

        Args:
            timeout: Seconds that one attempt of a call may take.
            subject: Levels of the subject; `cycles.subject(...)` and the `subject` of a call override them.
            overage_policy: REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT.
            lease_policy: ``"warn"``, ``"fail_on_finalize"`` or ``"cancel"``.
            max_retries: How often a write is sent again with the same key after an inconclusive response.
            extra_headers: Headers that each request has in addition.

        Raises:
            InvalidRequestError: A value is wrong.
        """
        changes = {
            "timeout": timeout,
            "subject": subject,
            "overage_policy": overage_policy,
            "lease_policy": lease_policy,
            "max_retries": max_retries,
            "extra_headers": extra_headers,
        }
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._options = self._options.over(changes)
        view._request_cache = RequestCache()
        view._root = self._root or self
        view.aio = self.aio._of_view(view._options)
        return view

    def __repr__(self) -> str:
        return short(self._config, self._options)

    def describe(self) -> dict[str, Any]:
        """Return what the client is connected to, as whom and with which options, as JSON values without secrets."""
        client = self._root or self
        own = [type(each).__qualname__ for each in client._http_clients if each is not None]
        closed = client._closed_in == os.getpid()
        return describe(self._config, self._options, http_client=", ".join(own) or None, closed=closed)


def describe(config: Config, options: ViewOptions, *, http_client: str | None, closed: bool) -> dict[str, Any]:
    """Return the description of a client.

    Args:
        config: Its configuration.
        options: What a view of it changes.
        http_client: The kind of the user's own HTTP client, if there is one.
        closed: Whether it is closed.
    """
    settings = {name: getattr(config, name) for name in fields_dict(Config) if name not in _SHOWN_ELSEWHERE}
    for name in ("timeout", "lease_policy", "max_retries", "overage_policy"):
        value = getattr(options, name)
        if value is not None:
            settings[name] = value
    return {
        "base_url": config.base_url,
        "api_key": "a callable" if callable(config.api_key) else "a str",
        "subject": subject_of(config, options).to_dict(),
        "headers": sorted({*(config.default_headers or {}), *options.extra_headers}),  # names only
        "settings": {name: _shown(value) for name, value in settings.items()},
        "http_client": http_client,
        "closed": closed,
        "version": __version__,
        "protocol": PROTOCOL_VERSION,
    }


def short(config: Config, options: ViewOptions) -> str:
    """Return the repr of a client."""
    subject = ", ".join(f"{name} {value}" for name, value in subject_of(config, options).to_dict().items())
    changed = [name for name in ("timeout", "lease_policy", "max_retries", "overage_policy") if getattr(options, name)]
    more = "".join(f", {name}={getattr(options, name)}" for name in changed)
    return f"<Cycles {config.base_url}{', ' if subject else ''}{subject}{more}>"


def subject_of(config: Config, options: ViewOptions) -> Subject:
    """Return the subject that requests have without an own one."""
    return options.subject.over(Subject(**{level: getattr(config, level) for level in LEVELS}))


def _shown(value: Any) -> Any:
    """Return a value that a person can read and that can be encoded as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return "a callable" if callable(value) else str(value)


readable(MakesViews)
