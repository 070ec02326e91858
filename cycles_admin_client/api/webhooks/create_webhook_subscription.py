from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.error_response import ErrorResponse
from ...models.webhook_create_request import WebhookCreateRequest
from ...models.webhook_create_response import WebhookCreateResponse
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    body: WebhookCreateRequest,
    tenant_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    params: dict[str, Any] = {}

    params["tenant_id"] = tenant_id

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/admin/webhooks",
        "params": params,
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ErrorResponse | WebhookCreateResponse:
    if response.status_code == 201:
        response_201 = WebhookCreateResponse.from_dict(response.json())

        return response_201

    response_default = ErrorResponse.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ErrorResponse | WebhookCreateResponse]:
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
    body: WebhookCreateRequest,
    tenant_id: str | Unset = UNSET,
) -> Response[ErrorResponse | WebhookCreateResponse]:
    """Creates a webhook subscription of a tenant, or of the whole system.

    Args:
        tenant_id (str | Unset): Owner of the subscription; the whole system if absent.
        body (WebhookCreateRequest): Request to create a webhook subscription.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | WebhookCreateResponse]
    """

    kwargs = _get_kwargs(
        body=body,
        tenant_id=tenant_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient,
    body: WebhookCreateRequest,
    tenant_id: str | Unset = UNSET,
) -> ErrorResponse | WebhookCreateResponse | None:
    """Creates a webhook subscription of a tenant, or of the whole system.

    Args:
        tenant_id (str | Unset): Owner of the subscription; the whole system if absent.
        body (WebhookCreateRequest): Request to create a webhook subscription.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | WebhookCreateResponse
    """

    return sync_detailed(
        client=client,
        body=body,
        tenant_id=tenant_id,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    body: WebhookCreateRequest,
    tenant_id: str | Unset = UNSET,
) -> Response[ErrorResponse | WebhookCreateResponse]:
    """Creates a webhook subscription of a tenant, or of the whole system.

    Args:
        tenant_id (str | Unset): Owner of the subscription; the whole system if absent.
        body (WebhookCreateRequest): Request to create a webhook subscription.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | WebhookCreateResponse]
    """

    kwargs = _get_kwargs(
        body=body,
        tenant_id=tenant_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    body: WebhookCreateRequest,
    tenant_id: str | Unset = UNSET,
) -> ErrorResponse | WebhookCreateResponse | None:
    """Creates a webhook subscription of a tenant, or of the whole system.

    Args:
        tenant_id (str | Unset): Owner of the subscription; the whole system if absent.
        body (WebhookCreateRequest): Request to create a webhook subscription.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | WebhookCreateResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
            tenant_id=tenant_id,
        )
    ).parsed
