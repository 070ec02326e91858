from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.action_quota_list_response import ActionQuotaListResponse
from ...models.error_response import ErrorResponse
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    tenant_id: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    action_kind: str | Unset = UNSET,
    window: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    include_zero: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["tenant_id"] = tenant_id

    params["scope"] = scope

    params["action_kind"] = action_kind

    params["window"] = window

    params["run_id"] = run_id

    params["include_zero"] = include_zero

    params["limit"] = limit

    params["cursor"] = cursor

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/action-quota-counters",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ActionQuotaListResponse | ErrorResponse:
    if response.status_code == 200:
        response_200 = ActionQuotaListResponse.from_dict(response.json())

        return response_200

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ActionQuotaListResponse | ErrorResponse]:
    parsed = None
    parse_error: Exception | None = None
    try:
        parsed = _parse_response(client=client, response=response)
    except PARSE_ERRORS as error:
        parse_error = error
    return Response(
        status_code=response.status_code,
        content=response.content,
        headers=response.headers,
        parsed=parsed,
        parse_error=parse_error,
    )


def sync_detailed(
    *,
    client: AuthenticatedClient,
    tenant_id: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    action_kind: str | Unset = UNSET,
    window: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    include_zero: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ActionQuotaListResponse | ErrorResponse]:
    """Lists quota counters.

    Args:
        tenant_id (str | Unset): The tenant; required with the admin key.
        scope (str | Unset): Only scopes that begin with this.
        action_kind (str | Unset): Only this action kind.
        window (str | Unset): Only this window.
        run_id (str | Unset): Only this run.
        include_zero (bool | Unset): Whether to include counters that are zero.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ActionQuotaListResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        scope=scope,
        action_kind=action_kind,
        window=window,
        run_id=run_id,
        include_zero=include_zero,
        limit=limit,
        cursor=cursor,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient,
    tenant_id: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    action_kind: str | Unset = UNSET,
    window: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    include_zero: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ActionQuotaListResponse | ErrorResponse | None:
    """Lists quota counters.

    Args:
        tenant_id (str | Unset): The tenant; required with the admin key.
        scope (str | Unset): Only scopes that begin with this.
        action_kind (str | Unset): Only this action kind.
        window (str | Unset): Only this window.
        run_id (str | Unset): Only this run.
        include_zero (bool | Unset): Whether to include counters that are zero.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ActionQuotaListResponse | ErrorResponse
    """

    return sync_detailed(
        client=client,
        tenant_id=tenant_id,
        scope=scope,
        action_kind=action_kind,
        window=window,
        run_id=run_id,
        include_zero=include_zero,
        limit=limit,
        cursor=cursor,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    tenant_id: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    action_kind: str | Unset = UNSET,
    window: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    include_zero: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ActionQuotaListResponse | ErrorResponse]:
    """Lists quota counters.

    Args:
        tenant_id (str | Unset): The tenant; required with the admin key.
        scope (str | Unset): Only scopes that begin with this.
        action_kind (str | Unset): Only this action kind.
        window (str | Unset): Only this window.
        run_id (str | Unset): Only this run.
        include_zero (bool | Unset): Whether to include counters that are zero.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ActionQuotaListResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        scope=scope,
        action_kind=action_kind,
        window=window,
        run_id=run_id,
        include_zero=include_zero,
        limit=limit,
        cursor=cursor,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    tenant_id: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    action_kind: str | Unset = UNSET,
    window: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    include_zero: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ActionQuotaListResponse | ErrorResponse | None:
    """Lists quota counters.

    Args:
        tenant_id (str | Unset): The tenant; required with the admin key.
        scope (str | Unset): Only scopes that begin with this.
        action_kind (str | Unset): Only this action kind.
        window (str | Unset): Only this window.
        run_id (str | Unset): Only this run.
        include_zero (bool | Unset): Whether to include counters that are zero.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ActionQuotaListResponse | ErrorResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            tenant_id=tenant_id,
            scope=scope,
            action_kind=action_kind,
            window=window,
            run_id=run_id,
            include_zero=include_zero,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
