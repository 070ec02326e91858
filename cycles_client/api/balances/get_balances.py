from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.balance_response import BalanceResponse
from ...models.error_response import ErrorResponse
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    include_children: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["tenant"] = tenant

    params["workspace"] = workspace

    params["app"] = app

    params["workflow"] = workflow

    params["agent"] = agent

    params["toolset"] = toolset

    params["include_children"] = include_children

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
) -> BalanceResponse | ErrorResponse | None:
    if response.status_code == 200:
        response_200 = BalanceResponse.from_dict(response.json())

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
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    include_children: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[BalanceResponse | ErrorResponse]:
    """List budgets

     Pages through the balances of the scopes that match the given subject.

    Args:
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        include_children (bool | Unset): Also the scopes below the ones that match. Server
            default: false.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BalanceResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant=tenant,
        workspace=workspace,
        app=app,
        workflow=workflow,
        agent=agent,
        toolset=toolset,
        include_children=include_children,
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
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    include_children: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> BalanceResponse | ErrorResponse | None:
    """List budgets

     Pages through the balances of the scopes that match the given subject.

    Args:
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        include_children (bool | Unset): Also the scopes below the ones that match. Server
            default: false.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BalanceResponse | ErrorResponse
    """

    return sync_detailed(
        client=client,
        tenant=tenant,
        workspace=workspace,
        app=app,
        workflow=workflow,
        agent=agent,
        toolset=toolset,
        include_children=include_children,
        limit=limit,
        cursor=cursor,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    include_children: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[BalanceResponse | ErrorResponse]:
    """List budgets

     Pages through the balances of the scopes that match the given subject.

    Args:
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        include_children (bool | Unset): Also the scopes below the ones that match. Server
            default: false.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BalanceResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant=tenant,
        workspace=workspace,
        app=app,
        workflow=workflow,
        agent=agent,
        toolset=toolset,
        include_children=include_children,
        limit=limit,
        cursor=cursor,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    tenant: str | Unset = UNSET,
    workspace: str | Unset = UNSET,
    app: str | Unset = UNSET,
    workflow: str | Unset = UNSET,
    agent: str | Unset = UNSET,
    toolset: str | Unset = UNSET,
    include_children: bool | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> BalanceResponse | ErrorResponse | None:
    """List budgets

     Pages through the balances of the scopes that match the given subject.

    Args:
        tenant (str | Unset): Only this tenant.
        workspace (str | Unset): Only this workspace.
        app (str | Unset): Only this app.
        workflow (str | Unset): Only this workflow.
        agent (str | Unset): Only this agent.
        toolset (str | Unset): Only this toolset.
        include_children (bool | Unset): Also the scopes below the ones that match. Server
            default: false.
        limit (int | Unset): Maximum number of entries per page. Server default: 50.
        cursor (str | Unset): Opaque position of the next page, from the previous response.

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
            workspace=workspace,
            app=app,
            workflow=workflow,
            agent=agent,
            toolset=toolset,
            include_children=include_children,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
