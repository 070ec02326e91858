"""`guarded`: one line that puts a guard around every call of a function.

Whatever it decorates stays what it is for `inspect` and for type checkers: functions, coroutine functions, generator
functions and async generator functions, and static and class methods made of them. Callables among the options are
asked for each call (`cycles._core.call_arguments`), before anything is reserved.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from functools import partial, wraps
from typing import Any, Final, Protocol, TypeVar

from attrs import evolve

from cycles._client.context import running
from cycles._client.guard import AsyncGuard, Guard
from cycles._client.options import ActionOption, ActualOption, AmountOption, GuardedOptions
from cycles._client.reservation import Reservation
from cycles._core.amounts import Amount
from cycles._core.call_arguments import Call, by_name, by_result, signature_of
from cycles._core.json_values import clean_object
from cycles._core.subjects import as_action, as_subject
from cycles._core.usage import Usage
from cycles._errors import InvalidRequestError

F = TypeVar("F", bound="Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any]")


_ESTIMATED: Final = {"actual_source": "estimate"}


class Reserves(Protocol):
    """What the decorator needs of a client."""

    @property
    def reserve(self) -> Callable[..., Reservation]: ...


def guarded_by(
    client: Callable[[], Reserves],
    estimate: AmountOption,
    action: ActionOption,
    actual: ActualOption,
    options: GuardedOptions,
) -> Callable[[F], F]:
    """The decorator itself; `Cycles.guarded` says what users may pass.

    Args:
        client: Tells the client, at each call.
        estimate: An amount, or a callable of the call's arguments.
        action: An action, a pair, or a callable of the call's arguments.
        actual: An amount, a callable of the result (and arguments by name), or None for the estimate.
        options: The other options of `reserve` that were given; those that are callable are asked for each call.

    Raises:
        InvalidRequestError: at decoration time: for what cannot be guarded, for callables that ask for arguments the
            function does not have, and for options that no call could use.
    """
    given: dict[str, Any] = {"estimate": estimate, "action": action, **options}
    _check(given, actual)

    def decorate(function: Any) -> Any:
        if isinstance(function, staticmethod | classmethod):
            return type(function)(decorate(function.__func__))
        _refuse(function)
        return _wrapper(function, _Calls(client, function, given, actual))

    return decorate


def _check(given: Mapping[str, Any], actual: ActualOption) -> None:
    estimate = given["estimate"]
    if not isinstance(estimate, Amount) and not callable(estimate):
        raise InvalidRequestError(f"estimate: give an amount or a callable that answers one, got {estimate!r}")
    if not isinstance(actual, Amount | None) and not callable(actual):
        raise InvalidRequestError(f"actual: give an amount or a callable that answers one, got {actual!r}")
    if isinstance(actual, Amount) and isinstance(estimate, Amount) and actual.unit != estimate.unit:
        raise InvalidRequestError(f"actual: {actual} is in {actual.unit}, but the estimate is in {estimate.unit}")
    unknown = sorted(set(given) - {"estimate", "action", *GuardedOptions.__annotations__})
    if unknown:
        raise TypeError(f"guarded() has no option {unknown[0]!r}")
    action, subject, metadata = given["action"], given.get("subject"), given.get("metadata")
    if not callable(action):
        as_action(action)
    if not callable(subject):
        as_subject(subject)
    if metadata is not None and not callable(metadata):
        clean_object(metadata, "metadata")


def _refuse(function: Any) -> None:
    if isinstance(function, property):
        raise InvalidRequestError("cannot guard a property; put @guarded under @property, on its function")
    if isinstance(function, type):
        raise InvalidRequestError(f"cannot guard the class {function.__name__}; guard its methods, or a function")
    if not callable(function):
        raise InvalidRequestError(f"cannot guard {function!r}; @guarded takes a function")


class _Calls:
    """What is the same for all calls of one decorated function."""

    def __init__(
        self, client: Callable[[], Reserves], function: Any, given: Mapping[str, Any], actual: ActualOption
    ) -> None:
        self.client = client
        self.is_stream = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        self.signature = signature_of(function)
        self._asked = {name: by_name(name, ask, self.signature) for name, ask in given.items() if callable(ask)}
        self._fixed = {name: value for name, value in given.items() if name not in self._asked}
        self._actual = actual
        self._ask: Callable[..., Any] | None = None
        self._needs_result = False
        if callable(actual):
            self._ask, self._needs_result = by_result(actual, self.signature)

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, Reservation]:
        """The reservation of one call. Nothing is sent yet."""
        call = Call(self.signature, args, kwargs)
        options = {**self._fixed, **{name: ask(call) for name, ask in self._asked.items()}}
        actual = self._actual
        if self._ask is not None:
            # What needs the result is unknown until there is one: a call that raises is then released.
            actual = None if self._needs_result and not self.is_stream else partial(self._of_usage, call)
        return call, self.client().reserve(options.pop("estimate"), actual=actual, **options)

    def _of_usage(self, call: Call, usage: Usage) -> Any:
        assert self._ask is not None
        return self._ask(call, usage, usage)

    def returned(self, guard: Guard | AsyncGuard, call: Call, result: Any) -> None:
        """The call ended normally: say what it cost, for the guard to settle."""
        if inspect.iscoroutine(result):
            result.close()
            raise InvalidRequestError(
                "a guarded plain function answered a coroutine, which would run unguarded; guard an async def"
            )
        state, ask = guard._state, self._ask
        if state.spent is not None:
            return  # what was counted while it ran is better than any estimate
        if self._actual is None:
            state.request = evolve(state.request, actual=state.request.estimate, settlement_metadata=_ESTIMATED)
        elif ask is not None and self._needs_result and not self.is_stream:
            state.request = evolve(state.request, actual=lambda usage: ask(call, result, usage))


def _wrapper(function: Any, calls: _Calls) -> Any:
    kinds: tuple[tuple[Callable[[Any], bool], Callable[[Any, _Calls], Any]], ...] = (
        (inspect.isasyncgenfunction, _async_generator),
        (inspect.isgeneratorfunction, _generator),
        (inspect.iscoroutinefunction, _coroutine),
    )
    called = function if hasattr(function, "__code__") or isinstance(function, partial) else function.__call__
    for is_kind, wrap in kinds:
        if is_kind(function) or is_kind(called):
            return wrap(function, calls)
    return _function(function, calls)


def _function(function: Any, calls: _Calls) -> Any:
    @wraps(function)
    def guarded_function(*args: Any, **kwargs: Any) -> Any:
        call, reservation = calls.open(args, kwargs)
        with reservation as guard:
            result = function(*args, **kwargs)
            calls.returned(guard, call, result)
        return result

    return guarded_function


def _coroutine(function: Any, calls: _Calls) -> Any:
    @wraps(function)
    async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
        call, reservation = calls.open(args, kwargs)
        async with reservation as guard:
            result = await function(*args, **kwargs)
            calls.returned(guard, call, result)
        return result

    return guarded_coroutine


def _generator(function: Any, calls: _Calls) -> Any:
    @wraps(function)
    def guarded_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call, reservation = calls.open(args, kwargs)
        guard = reservation.acquire()
        guard._state.is_stream = True
        try:
            result = yield from _steps(guard, function(*args, **kwargs))
            calls.returned(guard, call, result)
        except BaseException as raised:
            guard._end(raised)
            raise
        guard._end(None)
        return result

    return guarded_generator


def _steps(guard: Guard, body: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run the body step by step: it, and only it, sees the guard as the current one."""
    step: Callable[[], Any] = partial(body.send, None)
    while True:
        try:
            with running(guard):
                item = step()
        except StopIteration as end:
            return end.value
        try:
            step = partial(body.send, (yield item))
        except GeneratorExit:
            with running(guard):
                body.close()
            raise
        except BaseException as thrown:
            step = partial(body.throw, thrown)


def _async_generator(function: Any, calls: _Calls) -> Any:
    @wraps(function)
    async def guarded_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call, reservation = calls.open(args, kwargs)
        guard = await reservation
        guard._state.is_stream = True
        try:
            body = function(*args, **kwargs)
            step = partial(body.asend, None)
            while True:
                try:
                    with running(guard):
                        item = await step()
                except StopAsyncIteration:
                    break
                try:
                    step = partial(body.asend, (yield item))
                except GeneratorExit:
                    with running(guard):
                        await body.aclose()
                    raise
                except BaseException as thrown:
                    step = partial(body.athrow, thrown)
            calls.returned(guard, call, None)
        except BaseException as raised:
            await guard._end(raised)
            raise
        await guard._end(None)

    return guarded_async_generator
