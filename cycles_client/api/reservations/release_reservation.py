from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.error_response import ErrorResponse
from ...models.release_request import ReleaseRequest
from ...models.release_response import ReleaseResponse
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    reservation_id: str,
    *,
    body: ReleaseRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(x_idempotency_key, Unset):
        headers["X-Idempotency-Key"] = x_idempotency_key

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/reservations/{reservation_id}/release".format(
            reservation_id=quote(str(reservation_id), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ErrorResponse | ReleaseResponse | None:
    if response.status_code == 200:
        response_200 = ReleaseResponse.from_dict(response.json())

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

    if response.status_code == 410:
        response_410 = ErrorResponse.from_dict(response.json())

        return response_410

    if response.status_code == 500:
        response_500 = ErrorResponse.from_dict(response.json())

        return response_500

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ErrorResponse | ReleaseResponse]:
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
    reservation_id: str,
    *,
    client: AuthenticatedClient,
    body: ReleaseRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> Response[ErrorResponse | ReleaseResponse]:
    """Give a reservation back

     Releases the whole reservation; accepted until the grace period ends.

    Args:
        reservation_id (str): Id of the reservation, as the server returned it.
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReleaseRequest): Request to release a reservation whose action did not run.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | ReleaseResponse]
    """

    kwargs = _get_kwargs(
        reservation_id=reservation_id,
        body=body,
        x_idempotency_key=x_idempotency_key,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    reservation_id: str,
    *,
    client: AuthenticatedClient,
    body: ReleaseRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> ErrorResponse | ReleaseResponse | None:
    """Give a reservation back

     Releases the whole reservation; accepted until the grace period ends.

    Args:
        reservation_id (str): Id of the reservation, as the server returned it.
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReleaseRequest): Request to release a reservation whose action did not run.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | ReleaseResponse
    """

    return sync_detailed(
        reservation_id=reservation_id,
        client=client,
        body=body,
        x_idempotency_key=x_idempotency_key,
    ).parsed


async def asyncio_detailed(
    reservation_id: str,
    *,
    client: AuthenticatedClient,
    body: ReleaseRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> Response[ErrorResponse | ReleaseResponse]:
    """Give a reservation back

     Releases the whole reservation; accepted until the grace period ends.

    Args:
        reservation_id (str): Id of the reservation, as the server returned it.
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReleaseRequest): Request to release a reservation whose action did not run.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ErrorResponse | ReleaseResponse]
    """

    kwargs = _get_kwargs(
        reservation_id=reservation_id,
        body=body,
        x_idempotency_key=x_idempotency_key,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    reservation_id: str,
    *,
    client: AuthenticatedClient,
    body: ReleaseRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> ErrorResponse | ReleaseResponse | None:
    """Give a reservation back

     Releases the whole reservation; accepted until the grace period ends.

    Args:
        reservation_id (str): Id of the reservation, as the server returned it.
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (ReleaseRequest): Request to release a reservation whose action did not run.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ErrorResponse | ReleaseResponse
    """

    return (
        await asyncio_detailed(
            reservation_id=reservation_id,
            client=client,
            body=body,
            x_idempotency_key=x_idempotency_key,
        )
    ).parsed
