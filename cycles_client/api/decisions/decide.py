from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.decision_request import DecisionRequest
from ...models.decision_response import DecisionResponse
from ...models.error_response import ErrorResponse
from ...types import PARSE_ERRORS, UNSET, Response, Unset


def _get_kwargs(
    *,
    body: DecisionRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(x_idempotency_key, Unset):
        headers["X-Idempotency-Key"] = x_idempotency_key

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/decide",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> DecisionResponse | ErrorResponse | None:
    if response.status_code == 200:
        response_200 = DecisionResponse.from_dict(response.json())

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
) -> Response[DecisionResponse | ErrorResponse]:
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
    body: DecisionRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> Response[DecisionResponse | ErrorResponse]:
    """Ask whether an action may run

     Evaluates without reserving.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (DecisionRequest): Evaluation of an action, without a reservation.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[DecisionResponse | ErrorResponse]
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
    body: DecisionRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> DecisionResponse | ErrorResponse | None:
    """Ask whether an action may run

     Evaluates without reserving.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (DecisionRequest): Evaluation of an action, without a reservation.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        DecisionResponse | ErrorResponse
    """

    return sync_detailed(
        client=client,
        body=body,
        x_idempotency_key=x_idempotency_key,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    body: DecisionRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> Response[DecisionResponse | ErrorResponse]:
    """Ask whether an action may run

     Evaluates without reserving.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (DecisionRequest): Evaluation of an action, without a reservation.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[DecisionResponse | ErrorResponse]
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
    body: DecisionRequest,
    x_idempotency_key: str | Unset = UNSET,
) -> DecisionResponse | ErrorResponse | None:
    """Ask whether an action may run

     Evaluates without reserving.

    Args:
        x_idempotency_key (str | Unset): Identifies one intended effect, so that a repeated
            request takes effect once.
        body (DecisionRequest): Evaluation of an action, without a reservation.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        DecisionResponse | ErrorResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
            x_idempotency_key=x_idempotency_key,
        )
    ).parsed
