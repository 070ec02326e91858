import datetime
from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.audit_log_list_response import AuditLogListResponse
from ...models.error_response import ErrorResponse
from ...models.list_audit_logs_sort_dir import ListAuditLogsSortDir
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    tenant_id: str | Unset = UNSET,
    key_id: str | Unset = UNSET,
    operation: str | Unset = UNSET,
    resource_type: str | Unset = UNSET,
    resource_id: str | Unset = UNSET,
    error_code: str | Unset = UNSET,
    error_code_exclude: str | Unset = UNSET,
    status: int | Unset = UNSET,
    status_min: int | Unset = UNSET,
    status_max: int | Unset = UNSET,
    request_id: str | Unset = UNSET,
    trace_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListAuditLogsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["tenant_id"] = tenant_id

    params["key_id"] = key_id

    params["operation"] = operation

    params["resource_type"] = resource_type

    params["resource_id"] = resource_id

    params["error_code"] = error_code

    params["error_code_exclude"] = error_code_exclude

    params["status"] = status

    params["status_min"] = status_min

    params["status_max"] = status_max

    params["request_id"] = request_id

    params["trace_id"] = trace_id

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
        json_sort_dir = ListAuditLogsSortDir(sort_dir).value

    params["sort_dir"] = json_sort_dir

    params["limit"] = limit

    params["cursor"] = cursor

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/audit/logs",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> AuditLogListResponse | ErrorResponse:
    if response.status_code == 200:
        response_200 = AuditLogListResponse.from_dict(response.json())

        return response_200

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[AuditLogListResponse | ErrorResponse]:
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
    key_id: str | Unset = UNSET,
    operation: str | Unset = UNSET,
    resource_type: str | Unset = UNSET,
    resource_id: str | Unset = UNSET,
    error_code: str | Unset = UNSET,
    error_code_exclude: str | Unset = UNSET,
    status: int | Unset = UNSET,
    status_min: int | Unset = UNSET,
    status_max: int | Unset = UNSET,
    request_id: str | Unset = UNSET,
    trace_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListAuditLogsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[AuditLogListResponse | ErrorResponse]:
    """Lists calls of admin operations, newest first.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        key_id (str | Unset): Only calls with this API key.
        operation (str | Unset): Only these operation ids.
        resource_type (str | Unset): Only these kinds of objects.
        resource_id (str | Unset): Only this object.
        error_code (str | Unset): Only these error codes.
        error_code_exclude (str | Unset): No entries with these error codes.
        status (int | Unset): Only this HTTP status.
        status_min (int | Unset): Least HTTP status.
        status_max (int | Unset): Largest HTTP status.
        request_id (str | Unset): Only this request.
        trace_id (str | Unset): Only this trace.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListAuditLogsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[AuditLogListResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        key_id=key_id,
        operation=operation,
        resource_type=resource_type,
        resource_id=resource_id,
        error_code=error_code,
        error_code_exclude=error_code_exclude,
        status=status,
        status_min=status_min,
        status_max=status_max,
        request_id=request_id,
        trace_id=trace_id,
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
    key_id: str | Unset = UNSET,
    operation: str | Unset = UNSET,
    resource_type: str | Unset = UNSET,
    resource_id: str | Unset = UNSET,
    error_code: str | Unset = UNSET,
    error_code_exclude: str | Unset = UNSET,
    status: int | Unset = UNSET,
    status_min: int | Unset = UNSET,
    status_max: int | Unset = UNSET,
    request_id: str | Unset = UNSET,
    trace_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListAuditLogsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> AuditLogListResponse | ErrorResponse | None:
    """Lists calls of admin operations, newest first.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        key_id (str | Unset): Only calls with this API key.
        operation (str | Unset): Only these operation ids.
        resource_type (str | Unset): Only these kinds of objects.
        resource_id (str | Unset): Only this object.
        error_code (str | Unset): Only these error codes.
        error_code_exclude (str | Unset): No entries with these error codes.
        status (int | Unset): Only this HTTP status.
        status_min (int | Unset): Least HTTP status.
        status_max (int | Unset): Largest HTTP status.
        request_id (str | Unset): Only this request.
        trace_id (str | Unset): Only this trace.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListAuditLogsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        AuditLogListResponse | ErrorResponse
    """

    return sync_detailed(
        client=client,
        tenant_id=tenant_id,
        key_id=key_id,
        operation=operation,
        resource_type=resource_type,
        resource_id=resource_id,
        error_code=error_code,
        error_code_exclude=error_code_exclude,
        status=status,
        status_min=status_min,
        status_max=status_max,
        request_id=request_id,
        trace_id=trace_id,
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
    key_id: str | Unset = UNSET,
    operation: str | Unset = UNSET,
    resource_type: str | Unset = UNSET,
    resource_id: str | Unset = UNSET,
    error_code: str | Unset = UNSET,
    error_code_exclude: str | Unset = UNSET,
    status: int | Unset = UNSET,
    status_min: int | Unset = UNSET,
    status_max: int | Unset = UNSET,
    request_id: str | Unset = UNSET,
    trace_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListAuditLogsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[AuditLogListResponse | ErrorResponse]:
    """Lists calls of admin operations, newest first.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        key_id (str | Unset): Only calls with this API key.
        operation (str | Unset): Only these operation ids.
        resource_type (str | Unset): Only these kinds of objects.
        resource_id (str | Unset): Only this object.
        error_code (str | Unset): Only these error codes.
        error_code_exclude (str | Unset): No entries with these error codes.
        status (int | Unset): Only this HTTP status.
        status_min (int | Unset): Least HTTP status.
        status_max (int | Unset): Largest HTTP status.
        request_id (str | Unset): Only this request.
        trace_id (str | Unset): Only this trace.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListAuditLogsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[AuditLogListResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        key_id=key_id,
        operation=operation,
        resource_type=resource_type,
        resource_id=resource_id,
        error_code=error_code,
        error_code_exclude=error_code_exclude,
        status=status,
        status_min=status_min,
        status_max=status_max,
        request_id=request_id,
        trace_id=trace_id,
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
    key_id: str | Unset = UNSET,
    operation: str | Unset = UNSET,
    resource_type: str | Unset = UNSET,
    resource_id: str | Unset = UNSET,
    error_code: str | Unset = UNSET,
    error_code_exclude: str | Unset = UNSET,
    status: int | Unset = UNSET,
    status_min: int | Unset = UNSET,
    status_max: int | Unset = UNSET,
    request_id: str | Unset = UNSET,
    trace_id: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListAuditLogsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> AuditLogListResponse | ErrorResponse | None:
    """Lists calls of admin operations, newest first.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        key_id (str | Unset): Only calls with this API key.
        operation (str | Unset): Only these operation ids.
        resource_type (str | Unset): Only these kinds of objects.
        resource_id (str | Unset): Only this object.
        error_code (str | Unset): Only these error codes.
        error_code_exclude (str | Unset): No entries with these error codes.
        status (int | Unset): Only this HTTP status.
        status_min (int | Unset): Least HTTP status.
        status_max (int | Unset): Largest HTTP status.
        request_id (str | Unset): Only this request.
        trace_id (str | Unset): Only this trace.
        from_ (datetime.datetime | Unset): Only entries at or after this time.
        to (datetime.datetime | Unset): Only entries before this time.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListAuditLogsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        AuditLogListResponse | ErrorResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            tenant_id=tenant_id,
            key_id=key_id,
            operation=operation,
            resource_type=resource_type,
            resource_id=resource_id,
            error_code=error_code,
            error_code_exclude=error_code_exclude,
            status=status,
            status_min=status_min,
            status_max=status_max,
            request_id=request_id,
            trace_id=trace_id,
            from_=from_,
            to=to,
            search=search,
            sort_by=sort_by,
            sort_dir=sort_dir,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
