from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.error_response import ErrorResponse
from ...models.list_tenants_sort_dir import ListTenantsSortDir
from ...models.tenant_list_response import TenantListResponse
from ...models.tenant_status import TenantStatus
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    status: TenantStatus | Unset = UNSET,
    parent_tenant_id: str | Unset = UNSET,
    observe_mode: str | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListTenantsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    json_status: str | Unset = UNSET
    if not isinstance(status, Unset):
        json_status = TenantStatus(status).value

    params["status"] = json_status

    params["parent_tenant_id"] = parent_tenant_id

    params["observe_mode"] = observe_mode

    params["search"] = search

    params["sort_by"] = sort_by

    json_sort_dir: str | Unset = UNSET
    if not isinstance(sort_dir, Unset):
        json_sort_dir = ListTenantsSortDir(sort_dir).value

    params["sort_dir"] = json_sort_dir

    params["limit"] = limit

    params["cursor"] = cursor

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/tenants",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ErrorResponse | TenantListResponse:
    if response.status_code == 200:
        response_200 = TenantListResponse.from_dict(response.json())

        return response_200

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ErrorResponse | TenantListResponse]:
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
    status: TenantStatus | Unset = UNSET,
    parent_tenant_id: str | Unset = UNSET,
    observe_mode: str | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListTenantsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ErrorResponse | TenantListResponse]:
    """Lists tenants.

    Args:
        status (TenantStatus | Unset): State of a tenant; CLOSED is final.
        parent_tenant_id (str | Unset): Only children of this tenant.
        observe_mode (str | Unset): Only tenants with this mode.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListTenantsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | TenantListResponse]
    """

    kwargs = _get_kwargs(
        status=status,
        parent_tenant_id=parent_tenant_id,
        observe_mode=observe_mode,
        search=search,
        sort_by=sort_by,
        sort_dir=sort_dir,
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
    status: TenantStatus | Unset = UNSET,
    parent_tenant_id: str | Unset = UNSET,
    observe_mode: str | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListTenantsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ErrorResponse | TenantListResponse | None:
    """Lists tenants.

    Args:
        status (TenantStatus | Unset): State of a tenant; CLOSED is final.
        parent_tenant_id (str | Unset): Only children of this tenant.
        observe_mode (str | Unset): Only tenants with this mode.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListTenantsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | TenantListResponse
    """

    return sync_detailed(
        client=client,
        status=status,
        parent_tenant_id=parent_tenant_id,
        observe_mode=observe_mode,
        search=search,
        sort_by=sort_by,
        sort_dir=sort_dir,
        limit=limit,
        cursor=cursor,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    status: TenantStatus | Unset = UNSET,
    parent_tenant_id: str | Unset = UNSET,
    observe_mode: str | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListTenantsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ErrorResponse | TenantListResponse]:
    """Lists tenants.

    Args:
        status (TenantStatus | Unset): State of a tenant; CLOSED is final.
        parent_tenant_id (str | Unset): Only children of this tenant.
        observe_mode (str | Unset): Only tenants with this mode.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListTenantsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | TenantListResponse]
    """

    kwargs = _get_kwargs(
        status=status,
        parent_tenant_id=parent_tenant_id,
        observe_mode=observe_mode,
        search=search,
        sort_by=sort_by,
        sort_dir=sort_dir,
        limit=limit,
        cursor=cursor,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    status: TenantStatus | Unset = UNSET,
    parent_tenant_id: str | Unset = UNSET,
    observe_mode: str | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListTenantsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ErrorResponse | TenantListResponse | None:
    """Lists tenants.

    Args:
        status (TenantStatus | Unset): State of a tenant; CLOSED is final.
        parent_tenant_id (str | Unset): Only children of this tenant.
        observe_mode (str | Unset): Only tenants with this mode.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListTenantsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | TenantListResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            status=status,
            parent_tenant_id=parent_tenant_id,
            observe_mode=observe_mode,
            search=search,
            sort_by=sort_by,
            sort_dir=sort_dir,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
