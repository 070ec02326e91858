from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.budget_ledger import BudgetLedger
from ...models.error_response import ErrorResponse
from ...models.unit import Unit
from ...types import PARSE_ERRORS, UNSET, Response


def _get_kwargs(
    *,
    scope: str,
    unit: Unit,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["scope"] = scope

    json_unit = Unit(unit).value
    params["unit"] = json_unit

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/budgets/lookup",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> BudgetLedger | ErrorResponse:
    if response.status_code == 200:
        response_200 = BudgetLedger.from_dict(response.json())

        return response_200

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[BudgetLedger | ErrorResponse]:
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
    scope: str,
    unit: Unit,
) -> Response[BudgetLedger | ErrorResponse]:
    """Returns the budget of a scope in one unit.

    Args:
        scope (str): Full path of the scope.
        unit (Unit): Unit of an amount; one US dollar is 100,000,000 microcents.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BudgetLedger | ErrorResponse]
    """

    kwargs = _get_kwargs(
        scope=scope,
        unit=unit,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient,
    scope: str,
    unit: Unit,
) -> BudgetLedger | ErrorResponse | None:
    """Returns the budget of a scope in one unit.

    Args:
        scope (str): Full path of the scope.
        unit (Unit): Unit of an amount; one US dollar is 100,000,000 microcents.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BudgetLedger | ErrorResponse
    """

    return sync_detailed(
        client=client,
        scope=scope,
        unit=unit,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    scope: str,
    unit: Unit,
) -> Response[BudgetLedger | ErrorResponse]:
    """Returns the budget of a scope in one unit.

    Args:
        scope (str): Full path of the scope.
        unit (Unit): Unit of an amount; one US dollar is 100,000,000 microcents.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BudgetLedger | ErrorResponse]
    """

    kwargs = _get_kwargs(
        scope=scope,
        unit=unit,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    scope: str,
    unit: Unit,
) -> BudgetLedger | ErrorResponse | None:
    """Returns the budget of a scope in one unit.

    Args:
        scope (str): Full path of the scope.
        unit (Unit): Unit of an amount; one US dollar is 100,000,000 microcents.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BudgetLedger | ErrorResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            scope=scope,
            unit=unit,
        )
    ).parsed
