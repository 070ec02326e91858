import datetime
from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.error_response import ErrorResponse
from ...models.event_list_response import EventListResponse
from ...models.list_events_sort_dir import ListEventsSortDir
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    tenant_id: str | Unset = UNSET,
    event_type: str | Unset = UNSET,
    category: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    correlation_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListEventsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["tenant_id"] = tenant_id

    params["event_type"] = event_type

    params["category"] = category

    params["scope"] = scope

    params["correlation_id"] = correlation_id

    json_from_: str | Unset = UNSET
    if not isinstance(from_, Unset):
        json_from_ = from_.isoformat()
    params["from"] = json_from_

    json_to: str | Unset = UNSET
    if not isinstance(to, Unset):
        json_to = to.isoformat()
    params["to"] = json_to

    params["search"] = search

    params["sort_by"] = sort_by

    json_sort_dir: str | Unset = UNSET
    if not isinstance(sort_dir, Unset):
        json_sort_dir = ListEventsSortDir(sort_dir).value

    params["sort_dir"] = json_sort_dir

    params["limit"] = limit

    params["cursor"] = cursor

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/events",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ErrorResponse | EventListResponse:
    if response.status_code == 200:
        response_200 = EventListResponse.from_dict(response.json())

        return response_200

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ErrorResponse | EventListResponse]:
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
    event_type: str | Unset = UNSET,
    category: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    correlation_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListEventsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ErrorResponse | EventListResponse]:
    """Lists events of all tenants.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        event_type (str | Unset): Only events of this type.
        category (str | Unset): Only events of this category.
        scope (str | Unset): Only events of this scope.
        correlation_id (str | Unset): Only events with this correlation id.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListEventsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | EventListResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        event_type=event_type,
        category=category,
        scope=scope,
        correlation_id=correlation_id,
        from_=from_,
        to=to,
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
    tenant_id: str | Unset = UNSET,
    event_type: str | Unset = UNSET,
    category: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    correlation_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListEventsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ErrorResponse | EventListResponse | None:
    """Lists events of all tenants.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        event_type (str | Unset): Only events of this type.
        category (str | Unset): Only events of this category.
        scope (str | Unset): Only events of this scope.
        correlation_id (str | Unset): Only events with this correlation id.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListEventsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | EventListResponse
    """

    return sync_detailed(
        client=client,
        tenant_id=tenant_id,
        event_type=event_type,
        category=category,
        scope=scope,
        correlation_id=correlation_id,
        from_=from_,
        to=to,
        search=search,
        sort_by=sort_by,
        sort_dir=sort_dir,
        limit=limit,
        cursor=cursor,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    tenant_id: str | Unset = UNSET,
    event_type: str | Unset = UNSET,
    category: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    correlation_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListEventsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ErrorResponse | EventListResponse]:
    """Lists events of all tenants.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        event_type (str | Unset): Only events of this type.
        category (str | Unset): Only events of this category.
        scope (str | Unset): Only events of this scope.
        correlation_id (str | Unset): Only events with this correlation id.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListEventsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | EventListResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        event_type=event_type,
        category=category,
        scope=scope,
        correlation_id=correlation_id,
        from_=from_,
        to=to,
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
    tenant_id: str | Unset = UNSET,
    event_type: str | Unset = UNSET,
    category: str | Unset = UNSET,
    scope: str | Unset = UNSET,
    correlation_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListEventsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ErrorResponse | EventListResponse | None:
    """Lists events of all tenants.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        event_type (str | Unset): Only events of this type.
        category (str | Unset): Only events of this category.
        scope (str | Unset): Only events of this scope.
        correlation_id (str | Unset): Only events with this correlation id.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListEventsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | EventListResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            tenant_id=tenant_id,
            event_type=event_type,
            category=category,
            scope=scope,
            correlation_id=correlation_id,
            from_=from_,
            to=to,
            search=search,
            sort_by=sort_by,
            sort_dir=sort_dir,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
