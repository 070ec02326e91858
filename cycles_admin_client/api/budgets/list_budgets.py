from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.budget_list_response import BudgetListResponse
from ...models.budget_status import BudgetStatus
from ...models.error_response import ErrorResponse
from ...models.list_budgets_sort_dir import ListBudgetsSortDir
from ...models.unit import Unit
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    tenant_id: str | Unset = UNSET,
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    status: BudgetStatus | Unset = UNSET,
    over_limit: bool | Unset = UNSET,
    has_debt: bool | Unset = UNSET,
    utilization_min: float | Unset = UNSET,
    utilization_max: float | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListBudgetsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["tenant_id"] = tenant_id

    params["scope_prefix"] = scope_prefix

    json_unit: str | Unset = UNSET
    if not isinstance(unit, Unset):
        json_unit = Unit(unit).value

    params["unit"] = json_unit

    json_status: str | Unset = UNSET
    if not isinstance(status, Unset):
        json_status = BudgetStatus(status).value

    params["status"] = json_status

    params["over_limit"] = over_limit

    params["has_debt"] = has_debt

    params["utilization_min"] = utilization_min

    params["utilization_max"] = utilization_max

    params["search"] = search

    params["sort_by"] = sort_by

    json_sort_dir: str | Unset = UNSET
    if not isinstance(sort_dir, Unset):
        json_sort_dir = ListBudgetsSortDir(sort_dir).value

    params["sort_dir"] = json_sort_dir

    params["limit"] = limit

    params["cursor"] = cursor

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/admin/budgets",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> BudgetListResponse | ErrorResponse:
    if response.status_code == 200:
        response_200 = BudgetListResponse.from_dict(response.json())

        return response_200

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[BudgetListResponse | ErrorResponse]:
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
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    status: BudgetStatus | Unset = UNSET,
    over_limit: bool | Unset = UNSET,
    has_debt: bool | Unset = UNSET,
    utilization_min: float | Unset = UNSET,
    utilization_max: float | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListBudgetsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[BudgetListResponse | ErrorResponse]:
    """Lists budgets.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        status (BudgetStatus | Unset): State of a budget; a frozen one rejects reservations and
            funding.
        over_limit (bool | Unset): Only budgets above their overdraft limit, or only others.
        has_debt (bool | Unset): Only budgets with debt, or only others.
        utilization_min (float | Unset): Least share of the allocation that is used, 0 to 1.
        utilization_max (float | Unset): Largest share of the allocation that is used, 0 to 1.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListBudgetsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BudgetListResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        scope_prefix=scope_prefix,
        unit=unit,
        status=status,
        over_limit=over_limit,
        has_debt=has_debt,
        utilization_min=utilization_min,
        utilization_max=utilization_max,
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
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    status: BudgetStatus | Unset = UNSET,
    over_limit: bool | Unset = UNSET,
    has_debt: bool | Unset = UNSET,
    utilization_min: float | Unset = UNSET,
    utilization_max: float | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListBudgetsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> BudgetListResponse | ErrorResponse | None:
    """Lists budgets.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        status (BudgetStatus | Unset): State of a budget; a frozen one rejects reservations and
            funding.
        over_limit (bool | Unset): Only budgets above their overdraft limit, or only others.
        has_debt (bool | Unset): Only budgets with debt, or only others.
        utilization_min (float | Unset): Least share of the allocation that is used, 0 to 1.
        utilization_max (float | Unset): Largest share of the allocation that is used, 0 to 1.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListBudgetsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BudgetListResponse | ErrorResponse
    """

    return sync_detailed(
        client=client,
        tenant_id=tenant_id,
        scope_prefix=scope_prefix,
        unit=unit,
        status=status,
        over_limit=over_limit,
        has_debt=has_debt,
        utilization_min=utilization_min,
        utilization_max=utilization_max,
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
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    status: BudgetStatus | Unset = UNSET,
    over_limit: bool | Unset = UNSET,
    has_debt: bool | Unset = UNSET,
    utilization_min: float | Unset = UNSET,
    utilization_max: float | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListBudgetsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> Response[BudgetListResponse | ErrorResponse]:
    """Lists budgets.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        status (BudgetStatus | Unset): State of a budget; a frozen one rejects reservations and
            funding.
        over_limit (bool | Unset): Only budgets above their overdraft limit, or only others.
        has_debt (bool | Unset): Only budgets with debt, or only others.
        utilization_min (float | Unset): Least share of the allocation that is used, 0 to 1.
        utilization_max (float | Unset): Largest share of the allocation that is used, 0 to 1.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListBudgetsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BudgetListResponse | ErrorResponse]
    """

    kwargs = _get_kwargs(
        tenant_id=tenant_id,
        scope_prefix=scope_prefix,
        unit=unit,
        status=status,
        over_limit=over_limit,
        has_debt=has_debt,
        utilization_min=utilization_min,
        utilization_max=utilization_max,
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
    scope_prefix: str | Unset = UNSET,
    unit: Unit | Unset = UNSET,
    status: BudgetStatus | Unset = UNSET,
    over_limit: bool | Unset = UNSET,
    has_debt: bool | Unset = UNSET,
    utilization_min: float | Unset = UNSET,
    utilization_max: float | Unset = UNSET,
    search: str | Unset = UNSET,
    sort_by: str | Unset = UNSET,
    sort_dir: ListBudgetsSortDir | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
) -> BudgetListResponse | ErrorResponse | None:
    """Lists budgets.

    Args:
        tenant_id (str | Unset): Tenant whose objects are meant.
        scope_prefix (str | Unset): Only scopes that begin with this.
        unit (Unit | Unset): Unit of an amount; one US dollar is 100,000,000 microcents.
        status (BudgetStatus | Unset): State of a budget; a frozen one rejects reservations and
            funding.
        over_limit (bool | Unset): Only budgets above their overdraft limit, or only others.
        has_debt (bool | Unset): Only budgets with debt, or only others.
        utilization_min (float | Unset): Least share of the allocation that is used, 0 to 1.
        utilization_max (float | Unset): Largest share of the allocation that is used, 0 to 1.
        search (str | Unset): Part of the searched text, in any case.
        sort_by (str | Unset): Sort key; the values differ per list.
        sort_dir (ListBudgetsSortDir | Unset): Sort direction.
        limit (int | Unset): Maximum number of entries per page.
        cursor (str | Unset): Opaque position of the next page, from the previous response with
            the same filters.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BudgetListResponse | ErrorResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            tenant_id=tenant_id,
            scope_prefix=scope_prefix,
            unit=unit,
            status=status,
            over_limit=over_limit,
            has_debt=has_debt,
            utilization_min=utilization_min,
            utilization_max=utilization_max,
            search=search,
            sort_by=sort_by,
            sort_dir=sort_dir,
            limit=limit,
            cursor=cursor,
        )
    ).parsed
