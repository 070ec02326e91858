from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error_response import ErrorResponse
from ...models.reservation_create_request import ReservationCreateRequest
from ...models.reservation_create_response import ReservationCreateResponse
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    body: ReservationCreateRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(x_idempotency_key, Unset):
        headers["X-Idempotency-Key"] = x_idempotency_key

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/reservations",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ErrorResponse | ReservationCreateResponse | None:
    if response.status_code == 200:
        response_200 = ReservationCreateResponse.from_dict(response.json())

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

    if response.status_code == 404:
        response_404 = ErrorResponse.from_dict(response.json())

        return response_404

    if response.status_code == 409:
        response_409 = ErrorResponse.from_dict(response.json())

        return response_409

    if response.status_code == 500:
        response_500 = ErrorResponse.from_dict(response.json())

        return response_500

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ErrorResponse | ReservationCreateResponse]:
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
    body: ReservationCreateRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> Response[ErrorResponse | ReservationCreateResponse]:
    """Hold budget for an action

     Reserves the estimate at every scope of the subject until it is committed, released or expired.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReservationCreateRequest): Request to reserve an estimated amount before the action
            runs.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | ReservationCreateResponse]
    """

    kwargs = _get_kwargs(
        body=body,
        x_idempotency_key=x_idempotency_key,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient,
    body: ReservationCreateRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> ErrorResponse | ReservationCreateResponse | None:
    """Hold budget for an action

     Reserves the estimate at every scope of the subject until it is committed, released or expired.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReservationCreateRequest): Request to reserve an estimated amount before the action
            runs.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | ReservationCreateResponse
    """

    return sync_detailed(
        client=client,
        body=body,
        x_idempotency_key=x_idempotency_key,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    body: ReservationCreateRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> Response[ErrorResponse | ReservationCreateResponse]:
    """Hold budget for an action

     Reserves the estimate at every scope of the subject until it is committed, released or expired.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReservationCreateRequest): Request to reserve an estimated amount before the action
            runs.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | ReservationCreateResponse]
    """

    kwargs = _get_kwargs(
        body=body,
        x_idempotency_key=x_idempotency_key,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    body: ReservationCreateRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> ErrorResponse | ReservationCreateResponse | None:
    """Hold budget for an action

     Reserves the estimate at every scope of the subject until it is committed, released or expired.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReservationCreateRequest): Request to reserve an estimated amount before the action
            runs.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | ReservationCreateResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
            x_idempotency_key=x_idempotency_key,
        )
    ).parsed
