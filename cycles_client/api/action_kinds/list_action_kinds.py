from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.action_kind_registry import ActionKindRegistry
from ...models.error_response import ErrorResponse
from ...models.risk_class import RiskClass
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    risk_class: RiskClass | Unset = UNSET,
    deprecated: bool | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    json_risk_class: str | Unset = UNSET
    if not isinstance(risk_class, Unset):
        json_risk_class = RiskClass(risk_class).value

    params["risk_class"] = json_risk_class

    params["deprecated"] = deprecated

    params["cursor"] = cursor

    params["limit"] = limit

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/action-kinds",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ActionKindRegistry | ErrorResponse | None:
    if response.status_code == 200:
        response_200 = ActionKindRegistry.from_dict(response.json())

        return response_200

    if response.status_code == 400:
        response_400 = ErrorResponse.from_dict(response.json())

        return response_400

    if response.status_code == 429:
        response_429 = ErrorResponse.from_dict(response.json())

        return response_429

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ActionKindRegistry | ErrorResponse]:
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
    client: AuthenticatedClient | Client,
    risk_class: RiskClass | Unset = UNSET,
    deprecated: bool | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[ActionKindRegistry | ErrorResponse]:
    """List the registered action kinds

     Public.

    Args:
        risk_class (RiskClass | Unset): How much harm an action can do, ascending.
        deprecated (bool | Unset): Whether deprecated kinds are listed too.
        cursor (str | Unset): The next_cursor of the page before.
        limit (int | Unset): Maximum number of kinds on the page.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ActionKindRegistry | ErrorResponse]
    """

    kwargs = _get_kwargs(
        risk_class=risk_class,
        deprecated=deprecated,
        cursor=cursor,
        limit=limit,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    risk_class: RiskClass | Unset = UNSET,
    deprecated: bool | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> ActionKindRegistry | ErrorResponse | None:
    """List the registered action kinds

     Public.

    Args:
        risk_class (RiskClass | Unset): How much harm an action can do, ascending.
        deprecated (bool | Unset): Whether deprecated kinds are listed too.
        cursor (str | Unset): The next_cursor of the page before.
        limit (int | Unset): Maximum number of kinds on the page.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ActionKindRegistry | ErrorResponse
    """

    return sync_detailed(
        client=client,
        risk_class=risk_class,
        deprecated=deprecated,
        cursor=cursor,
        limit=limit,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    risk_class: RiskClass | Unset = UNSET,
    deprecated: bool | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[ActionKindRegistry | ErrorResponse]:
    """List the registered action kinds

     Public.

    Args:
        risk_class (RiskClass | Unset): How much harm an action can do, ascending.
        deprecated (bool | Unset): Whether deprecated kinds are listed too.
        cursor (str | Unset): The next_cursor of the page before.
        limit (int | Unset): Maximum number of kinds on the page.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ActionKindRegistry | ErrorResponse]
    """

    kwargs = _get_kwargs(
        risk_class=risk_class,
        deprecated=deprecated,
        cursor=cursor,
        limit=limit,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    risk_class: RiskClass | Unset = UNSET,
    deprecated: bool | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> ActionKindRegistry | ErrorResponse | None:
    """List the registered action kinds

     Public.

    Args:
        risk_class (RiskClass | Unset): How much harm an action can do, ascending.
        deprecated (bool | Unset): Whether deprecated kinds are listed too.
        cursor (str | Unset): The next_cursor of the page before.
        limit (int | Unset): Maximum number of kinds on the page.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ActionKindRegistry | ErrorResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            risk_class=risk_class,
            deprecated=deprecated,
            cursor=cursor,
            limit=limit,
        )
    ).parsed
