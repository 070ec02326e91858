"""The part of a client that makes views of it, with other defaults, and that describes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self, cast

from cycles._client.async_operations import AsyncOperations, HasRuntime
from cycles._client.call_options import ViewOptions
from cycles._client.description import describe, short
from cycles._client.options import AnySubject
from cycles._client.request_cache import RequestCache
from cycles._config import Config, LeasePolicy
from cycles._version import readable


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
        view.aio = AsyncOperations(cast(HasRuntime, view))
        return view

    def __repr__(self) -> str:
        return short(self._config, self._options)

    def describe(self) -> dict[str, Any]:
        """Return what the client is connected to, as whom and with which options, as JSON values without secrets."""
        client = self._root or self
        own = [type(each).__qualname__ for each in client._http_clients if each is not None]
        closed = client._closed_in == os.getpid()
        return describe(self._config, self._options, http_client=", ".join(own) or None, closed=closed)


readable(MakesViews)
