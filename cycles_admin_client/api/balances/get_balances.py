from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.balance_response import BalanceResponse
from ...models.error_response import ErrorResponse
from ...models.unit import Unit
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    tenant: str | Unset = UNSET,
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["tenant"] = tenant

    params["scope_prefix"] = scope_prefix

    json_unit: str | Unset = UNSET
    if not isinstance(unit, Unset):
        json_unit = Unit(unit).value

    params["unit"] = json_unit

    params["limit"] = limit

    params["cursor"] = cursor

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/balances",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> BalanceResponse | ErrorResponse:
    if response.status_code == 200:
        response_200 = BalanceResponse.from_dict(response.json())

        return response_200

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[BalanceResponse | ErrorResponse]:
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
    tenant: str | Unset = UNSET,
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[BalanceResponse | ErrorResponse]:
    """Lists balances of the caller's tenant, as this server stores them.

    Args:
        tenant (str | Unset): The tenant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BalanceResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant=tenant,
        scope_prefix=scope_prefix,
        unit=unit,
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
    tenant: str | Unset = UNSET,
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> BalanceResponse | ErrorResponse | None:
    """Lists balances of the caller's tenant, as this server stores them.

    Args:
        tenant (str | Unset): The tenant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BalanceResponse | ErrorResponse
    """

    return sync_detailed(
        client=client,
        tenant=tenant,
        scope_prefix=scope_prefix,
        unit=unit,
        limit=limit,
        cursor=cursor,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    tenant: str | Unset = UNSET,
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[BalanceResponse | ErrorResponse]:
    """Lists balances of the caller's tenant, as this server stores them.

    Args:
        tenant (str | Unset): The tenant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BalanceResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant=tenant,
        scope_prefix=scope_prefix,
        unit=unit,
        limit=limit,
        cursor=cursor,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    tenant: str | Unset = UNSET,
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> BalanceResponse | ErrorResponse | None:
    """Lists balances of the caller's tenant, as this server stores them.

    Args:
        tenant (str | Unset): The tenant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BalanceResponse | ErrorResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            tenant=tenant,
            scope_prefix=scope_prefix,
            unit=unit,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
