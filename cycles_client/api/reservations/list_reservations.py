import datetime
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error_response import ErrorResponse
from ...models.list_reservations_sort_by import ListReservationsSortBy
from ...models.reservation_list_response import ReservationListResponse
from ...models.reservation_status import ReservationStatus
from ...models.sort_direction import SortDirection
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    idempotency_key: str | Unset = UNSET,
    status: ReservationStatus | Unset = UNSET,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    expires_from: datetime.datetime | Unset = UNSET,
    expires_to: datetime.datetime | Unset = UNSET,
    finalized_from: datetime.datetime | Unset = UNSET,
    finalized_to: datetime.datetime | Unset = UNSET,
    sort_by: ListReservationsSortBy | Unset = UNSET,
    sort_dir: SortDirection | Unset = UNSET,
    include: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["idempotency_key"] = idempotency_key

    json_status: str | Unset = UNSET
    if not isinstance(status, Unset):
        json_status = ReservationStatus(status).value

    params["status"] = json_status

    params["tenant"] = tenant

    params["workspace"] = workspace

    params["app"] = app

    params["workflow"] = workflow

    params["agent"] = agent

    params["toolset"] = toolset

    json_from_: str | Unset = UNSET
    if not isinstance(from_, Unset):
        json_from_ = from_.isoformat()
    params["from"] = json_from_

    json_to: str | Unset = UNSET
    if not isinstance(to, Unset):
        json_to = to.isoformat()
    params["to"] = json_to

    json_expires_from: str | Unset = UNSET
    if not isinstance(expires_from, Unset):
        json_expires_from = expires_from.isoformat()
    params["expires_from"] = json_expires_from

    json_expires_to: str | Unset = UNSET
    if not isinstance(expires_to, Unset):
        json_expires_to = expires_to.isoformat()
    params["expires_to"] = json_expires_to

    json_finalized_from: str | Unset = UNSET
    if not isinstance(finalized_from, Unset):
        json_finalized_from = finalized_from.isoformat()
    params["finalized_from"] = json_finalized_from

    json_finalized_to: str | Unset = UNSET
    if not isinstance(finalized_to, Unset):
        json_finalized_to = finalized_to.isoformat()
    params["finalized_to"] = json_finalized_to

    json_sort_by: str | Unset = UNSET
    if not isinstance(sort_by, Unset):
        json_sort_by = ListReservationsSortBy(sort_by).value

    params["sort_by"] = json_sort_by

    json_sort_dir: str | Unset = UNSET
    if not isinstance(sort_dir, Unset):
        json_sort_dir = SortDirection(sort_dir).value

    params["sort_dir"] = json_sort_dir

    params["include"] = include

    params["limit"] = limit

    params["cursor"] = cursor

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/reservations",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ErrorResponse | ReservationListResponse | None:
    if response.status_code == 200:
        response_200 = ReservationListResponse.from_dict(response.json())

        return response_200

    if response.status_code == 400:
        response_400 = ErrorResponse.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = ErrorResponse.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = ErrorResponse.from_dict(response.json())

        return response_403

    if response.status_code == 500:
        response_500 = ErrorResponse.from_dict(response.json())

        return response_500

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ErrorResponse | ReservationListResponse]:
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
    idempotency_key: str | Unset = UNSET,
    status: ReservationStatus | Unset = UNSET,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    expires_from: datetime.datetime | Unset = UNSET,
    expires_to: datetime.datetime | Unset = UNSET,
    finalized_from: datetime.datetime | Unset = UNSET,
    finalized_to: datetime.datetime | Unset = UNSET,
    sort_by: ListReservationsSortBy | Unset = UNSET,
    sort_dir: SortDirection | Unset = UNSET,
    include: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ErrorResponse | ReservationListResponse]:
    """List reservations

     Lists the reservations of the tenant; with an operator's key a tenant must be named.

    Args:
        idempotency_key (str | Unset): Identifies one intended effect, so that a repeated request
            takes effect once.
        status (ReservationStatus | Unset): State of a reservation.
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        from_ (datetime.datetime | Unset): Only those created at or after this time.
        to (datetime.datetime | Unset): Only those created before this time.
        expires_from (datetime.datetime | Unset): Only those that expire at or after this time.
        expires_to (datetime.datetime | Unset): Only those that expire before this time.
        finalized_from (datetime.datetime | Unset): Only those settled at or after this time.
        finalized_to (datetime.datetime | Unset): Only those settled before this time.
        sort_by (ListReservationsSortBy | Unset): Sort key. Server default: created_at_ms.
        sort_dir (SortDirection | Unset): Ascending or descending. Server default: desc.
        include (str | Unset): Further members to include, comma-separated on the wire.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | ReservationListResponse]
    """

    kwargs = _get_kwargs(
        idempotency_key=idempotency_key,
        status=status,
        tenant=tenant,
        workspace=workspace,
        app=app,
        workflow=workflow,
        agent=agent,
        toolset=toolset,
        from_=from_,
        to=to,
        expires_from=expires_from,
        expires_to=expires_to,
        finalized_from=finalized_from,
        finalized_to=finalized_to,
        sort_by=sort_by,
        sort_dir=sort_dir,
        include=include,
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
    idempotency_key: str | Unset = UNSET,
    status: ReservationStatus | Unset = UNSET,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    expires_from: datetime.datetime | Unset = UNSET,
    expires_to: datetime.datetime | Unset = UNSET,
    finalized_from: datetime.datetime | Unset = UNSET,
    finalized_to: datetime.datetime | Unset = UNSET,
    sort_by: ListReservationsSortBy | Unset = UNSET,
    sort_dir: SortDirection | Unset = UNSET,
    include: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ErrorResponse | ReservationListResponse | None:
    """List reservations

     Lists the reservations of the tenant; with an operator's key a tenant must be named.

    Args:
        idempotency_key (str | Unset): Identifies one intended effect, so that a repeated request
            takes effect once.
        status (ReservationStatus | Unset): State of a reservation.
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        from_ (datetime.datetime | Unset): Only those created at or after this time.
        to (datetime.datetime | Unset): Only those created before this time.
        expires_from (datetime.datetime | Unset): Only those that expire at or after this time.
        expires_to (datetime.datetime | Unset): Only those that expire before this time.
        finalized_from (datetime.datetime | Unset): Only those settled at or after this time.
        finalized_to (datetime.datetime | Unset): Only those settled before this time.
        sort_by (ListReservationsSortBy | Unset): Sort key. Server default: created_at_ms.
        sort_dir (SortDirection | Unset): Ascending or descending. Server default: desc.
        include (str | Unset): Further members to include, comma-separated on the wire.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | ReservationListResponse
    """

    return sync_detailed(
        client=client,
        idempotency_key=idempotency_key,
        status=status,
        tenant=tenant,
        workspace=workspace,
        app=app,
        workflow=workflow,
        agent=agent,
        toolset=toolset,
        from_=from_,
        to=to,
        expires_from=expires_from,
        expires_to=expires_to,
        finalized_from=finalized_from,
        finalized_to=finalized_to,
        sort_by=sort_by,
        sort_dir=sort_dir,
        include=include,
        limit=limit,
        cursor=cursor,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    idempotency_key: str | Unset = UNSET,
    status: ReservationStatus | Unset = UNSET,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    expires_from: datetime.datetime | Unset = UNSET,
    expires_to: datetime.datetime | Unset = UNSET,
    finalized_from: datetime.datetime | Unset = UNSET,
    finalized_to: datetime.datetime | Unset = UNSET,
    sort_by: ListReservationsSortBy | Unset = UNSET,
    sort_dir: SortDirection | Unset = UNSET,
    include: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[ErrorResponse | ReservationListResponse]:
    """List reservations

     Lists the reservations of the tenant; with an operator's key a tenant must be named.

    Args:
        idempotency_key (str | Unset): Identifies one intended effect, so that a repeated request
            takes effect once.
        status (ReservationStatus | Unset): State of a reservation.
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        from_ (datetime.datetime | Unset): Only those created at or after this time.
        to (datetime.datetime | Unset): Only those created before this time.
        expires_from (datetime.datetime | Unset): Only those that expire at or after this time.
        expires_to (datetime.datetime | Unset): Only those that expire before this time.
        finalized_from (datetime.datetime | Unset): Only those settled at or after this time.
        finalized_to (datetime.datetime | Unset): Only those settled before this time.
        sort_by (ListReservationsSortBy | Unset): Sort key. Server default: created_at_ms.
        sort_dir (SortDirection | Unset): Ascending or descending. Server default: desc.
        include (str | Unset): Further members to include, comma-separated on the wire.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | ReservationListResponse]
    """

    kwargs = _get_kwargs(
        idempotency_key=idempotency_key,
        status=status,
        tenant=tenant,
        workspace=workspace,
        app=app,
        workflow=workflow,
        agent=agent,
        toolset=toolset,
        from_=from_,
        to=to,
        expires_from=expires_from,
        expires_to=expires_to,
        finalized_from=finalized_from,
        finalized_to=finalized_to,
        sort_by=sort_by,
        sort_dir=sort_dir,
        include=include,
        limit=limit,
        cursor=cursor,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    idempotency_key: str | Unset = UNSET,
    status: ReservationStatus | Unset = UNSET,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    from_: datetime.datetime | Unset = UNSET,
    to: datetime.datetime | Unset = UNSET,
    expires_from: datetime.datetime | Unset = UNSET,
    expires_to: datetime.datetime | Unset = UNSET,
    finalized_from: datetime.datetime | Unset = UNSET,
    finalized_to: datetime.datetime | Unset = UNSET,
    sort_by: ListReservationsSortBy | Unset = UNSET,
    sort_dir: SortDirection | Unset = UNSET,
    include: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> ErrorResponse | ReservationListResponse | None:
    """List reservations

     Lists the reservations of the tenant; with an operator's key a tenant must be named.

    Args:
        idempotency_key (str | Unset): Identifies one intended effect, so that a repeated request
            takes effect once.
        status (ReservationStatus | Unset): State of a reservation.
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        from_ (datetime.datetime | Unset): Only those created at or after this time.
        to (datetime.datetime | Unset): Only those created before this time.
        expires_from (datetime.datetime | Unset): Only those that expire at or after this time.
        expires_to (datetime.datetime | Unset): Only those that expire before this time.
        finalized_from (datetime.datetime | Unset): Only those settled at or after this time.
        finalized_to (datetime.datetime | Unset): Only those settled before this time.
        sort_by (ListReservationsSortBy | Unset): Sort key. Server default: created_at_ms.
        sort_dir (SortDirection | Unset): Ascending or descending. Server default: desc.
        include (str | Unset): Further members to include, comma-separated on the wire.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | ReservationListResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            idempotency_key=idempotency_key,
            status=status,
            tenant=tenant,
            workspace=workspace,
            app=app,
            workflow=workflow,
            agent=agent,
            toolset=toolset,
            from_=from_,
            to=to,
            expires_from=expires_from,
            expires_to=expires_to,
            finalized_from=finalized_from,
            finalized_to=finalized_to,
            sort_by=sort_by,
            sort_dir=sort_dir,
            include=include,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
