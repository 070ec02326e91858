"""`guarded`: put a guard around every call of a function.

The decorated object stays what it is for `inspect` and for type checkers: a function, coroutine function, generator
function or async generator function, or a static or class method of one. Options that are callables are called for each
call (`cycles._core.values.call_arguments`), before anything is reserved. A call whose result still has work to do, such
as a generator that a plain function returns, is guarded until that work ends (`cycles._client.unfinished`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from functools import partial, wraps
from typing import Any, TypeVar

from cycles._client.call_options import no_option
from cycles._client.guard import AsyncGuard
from cycles._client.options import ActionOption, ActualOption, AmountOption, GuardedOptions, checked_amount
from cycles._client.reservation import Reservation
from cycles._client.unfinished import (
    Returned,
    async_steps,
    guarded_rest,
    guarded_rest_async,
    is_finished,
    of_usage,
    steps,
)
from cycles._core.amounts import Amount
from cycles._core.subjects import as_action, as_subject
from cycles._core.values.call_arguments import Call, QuickBinder, by_name, by_result, signature_of
from cycles._core.values.json_values import clean_object
from cycles._core.values.usage import Usage
from cycles._errors import InvalidRequestError

F = TypeVar("F", bound="Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any]")


def guarded_by(
    reserve: Callable[..., Reservation],
    estimate: AmountOption,
    action: ActionOption,
    actual: ActualOption,
    options: Mapping[str, object],
) -> Callable[[F], F]:
    """Return the decorator. `Cycles.guarded` documents the options.

    Args:
        reserve: Describes the reservation of one call, as `Cycles.reserve` does.
        estimate: An amount, or a callable of the call's arguments.
        action: An action, a pair, or a callable of the call's arguments.
        actual: An amount, a callable of the result (and arguments by name), or None for the estimate.
        options: The other options of `reserve`. Those that are callables are called for each call.

    Raises:
        InvalidRequestError: When decorating: the object cannot be guarded, a callable takes an argument that the
            function does not have, or an option is wrong for every call.
    """
    given: dict[str, Any] = {"estimate": estimate, "action": action, **options}
    # When decorating, so that a mistake fails at import and not at the first call in production.
    _check(given, actual)

    def decorate(function: Any) -> Any:
        # The function inside is guarded, so that the order of the decorators does not matter.
        if isinstance(function, staticmethod | classmethod):
            return type(function)(decorate(function.__func__))
        _check_function(function)
        return _wrapper(function, _Calls(reserve, function, given, actual))

    return decorate


def _check(given: Mapping[str, Any], actual: ActualOption) -> None:
    estimate = given["estimate"]
    if not callable(estimate):
        checked_amount(estimate)
    if not isinstance(actual, Amount | None) and not callable(actual):
        raise InvalidRequestError(f"actual must be an Amount or a callable that returns one, got {actual!r:.80}")
    if isinstance(actual, Amount) and isinstance(estimate, Amount) and actual.unit != estimate.unit:
        raise InvalidRequestError(f"actual must be in the unit of the estimate, {estimate.unit}: got {actual}")
    if unknown := sorted(set(given) - {"estimate", "action", *GuardedOptions.__annotations__}):
        raise no_option("guarded", unknown[0], GuardedOptions.__annotations__)
    action, subject, metadata = given["action"], given.get("subject"), given.get("metadata")
    if not callable(action):
        as_action(action)
    if not callable(subject):
        as_subject(subject)
    if metadata is not None and not callable(metadata):
        clean_object(metadata, "metadata")


def _check_function(function: Any) -> None:
    if isinstance(function, property):
        raise InvalidRequestError("a property cannot be guarded: write @guarded below @property, on its function")
    if isinstance(function, type):
        raise InvalidRequestError(f"the class {function.__name__} cannot be guarded: guard its methods, or a function")
    if not callable(function):
        raise InvalidRequestError(f"{function!r:.80} cannot be guarded: @guarded takes a function")


class _Calls:
    """What is the same for all calls of one decorated function."""

    def __init__(
        self, reserve: Callable[..., Reservation], function: Any, given: Mapping[str, Any], actual: ActualOption
    ) -> None:
        self._reserve = reserve
        self.is_stream = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        self.signature = signature_of(function)
        self._binder = QuickBinder(self.signature)
        self._callables = {
            name: by_name(name, value, self.signature) for name, value in given.items() if callable(value)
        }
        self._fixed = {name: value for name, value in given.items() if name not in self._callables}
        self._actual = actual
        self._call_actual: Callable[..., Any] | None = None
        self._needs_result = False
        if callable(actual):
            self._call_actual, self._needs_result = by_result(actual, self.signature)

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Returned, Reservation]:
        """Describe the reservation of one call, and what its end needs. Nothing is sent yet."""
        call = Call(self.signature, args, kwargs, self._binder)
        options = {**self._fixed, **{name: value(call) for name, value in self._callables.items()}}
        actual = self._actual
        cost = None if self._call_actual is None else partial(self._call_actual, call)
        if cost is not None:
            # `_no_result` is called only if the call raises after it has counted usage.
            actual = _no_result if self._needs_result and not self.is_stream else partial(of_usage, cost)
        returned = Returned(self._actual is None, cost, self._needs_result)
        return returned, self._reserve(options.pop("estimate"), actual=actual, **options)


def _no_result(usage: Usage) -> Amount:
    raise LookupError("actual= needs the return value, and the call raised")


def _wrapper(function: Any, calls: _Calls) -> Any:
    kinds: tuple[tuple[Callable[[Any], bool], Callable[[Any, _Calls], Any]], ...] = (
        (inspect.isasyncgenfunction, _async_generator),
        (inspect.isgeneratorfunction, _generator),
        (inspect.iscoroutinefunction, _coroutine),
    )
    # An object with `__call__` is of the kind of that method; `inspect` does not look there.
    called = function if hasattr(function, "__code__") or isinstance(function, partial) else function.__call__
    for is_kind, wrap in kinds:
        if is_kind(function) or is_kind(called):
            return wrap(function, calls)
    return _function(function, calls)


def _function(function: Any, calls: _Calls) -> Any:
    @wraps(function)
    def guarded_function(*args: Any, **kwargs: Any) -> Any:
        returned, reservation = calls.open(args, kwargs)
        guard = reservation.acquire()
        # No `with`: if the result has work left, the block is left here and the guard ends with that work.
        guard._enter()
        try:
            result = function(*args, **kwargs)
            finished = is_finished(result)
            if finished:
                returned.report(guard, result)
        except BaseException as raised:
            guard.end(raised)
            raise
        if not finished:
            guard._leave()
            return guarded_rest(guard, returned, result)
        guard.end()
        return result

    return guarded_function


def _coroutine(function: Any, calls: _Calls) -> Any:
    @wraps(function)
    async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
        returned, reservation = calls.open(args, kwargs)
        guard = await reservation
        await guard.__aenter__()
        try:
            result = await function(*args, **kwargs)
            finished = is_finished(result)
            if finished:
                returned.report(guard, result)
        except BaseException as raised:
            await guard.__aexit__(type(raised), raised, raised.__traceback__)
            raise
        if not finished:
            guard._leave()
            return guarded_rest_async(guard, returned, result)
        await guard.__aexit__(None, None, None)
        return result

    return guarded_coroutine


def _generator(function: Any, calls: _Calls) -> Any:
    @wraps(function)
    def guarded_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        returned, reservation = calls.open(args, kwargs)
        guard = reservation.acquire()
        return (yield from steps(guard, returned, partial(function, *args, **kwargs)))

    return guarded_generator


def _async_generator(function: Any, calls: _Calls) -> Any:
    async def opened(*args: Any, **kwargs: Any) -> tuple[AsyncGuard, Returned, Callable[[], Any]]:
        returned, reservation = calls.open(args, kwargs)
        return await reservation, returned, partial(function, *args, **kwargs)

    return wraps(function)(async_steps(opened))
