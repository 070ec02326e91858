"""An SDK of a provider as `cycles.providers` needs it: its client has the hooks of a Stainless SDK, and retries.

`BlockingSdk` and `AsyncSdk` have one flow. The SDKs themselves run in `make test-providers`.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import httpx
from attrs import define

from cycles._flows.io import run
from tests.simulation.provider import URL, Upstream, Use

RETRIES: Final = 2
PAUSE_S: Final = 0.5


class SdkError(Exception):
    """What the SDK raises if no attempt has a response."""


class SdkStatusError(SdkError):
    """The response has an error status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


@define
class Options:
    """One request, as the SDKs describe it."""

    json_data: dict[str, Any]
    headers: dict[str, str]
    url: str = "/responses"
    method: str = "post"
    extra_json: Any = None
    files: Any = None


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class _Sdk:
    base_url = URL

    def __init__(self, upstream: Upstream, http: Any, use: Use) -> None:
        self._upstream = upstream
        self._client = http
        self._use = use

    def copy(self, *, http_client: Any) -> Any:
        return type(self)(self._upstream, http_client, self._use)

    def _prepare_options(self, options: Any) -> Any:
        return options

    def _prepare_request(self, request: httpx.Request) -> Any:
        """The hook counts attempts here."""

    def _process_response(self, *, response: httpx.Response, **_: Any) -> Any:
        return response

    def _sleep_for_retry(self, **_: Any) -> Any:
        self._use.reserves()
        return self._upstream.sleep(PAUSE_S)

    async def _flow(self, cast_to: Any, options: Any, *, stream: bool = False) -> Any:
        for left in reversed(range(RETRIES + 1)):
            options = await _result(self._prepare_options(options))
            request = httpx.Request("POST", URL + options.url, json=options.json_data, headers=options.headers)
            await _result(self._prepare_request(request))
            try:
                response = await _result(self._client.send(request, stream=stream))
            except httpx.TransportError as error:
                if not left:
                    raise SdkError("no connection") from error
                await _result(self._sleep_for_retry(response=None))
                continue
            if response.status_code < 400:
                return await _result(self._process_response(cast_to=cast_to, response=response, stream=stream))
            if not left:
                raise SdkStatusError(response.status_code)
            await _result(self._sleep_for_retry(response=response))
        return None


class BlockingSdk(_Sdk):
    """Its client for threads."""

    def request(self, cast_to: Any, options: Any, **how: Any) -> Any:
        return run(self._flow(cast_to, options, **how))

    def _sleep_for_retry(self, **how: Any) -> Any:
        return run(super()._sleep_for_retry(**how))


class AsyncSdk(_Sdk):
    """Its client for tasks."""

    async def request(self, cast_to: Any, options: Any, **how: Any) -> Any:
        return await self._flow(cast_to, options, **how)

    async def _prepare_options(self, options: Any) -> Any:
        return options

    async def _process_response(self, **how: Any) -> Any:
        return super()._process_response(**how)
