"""Pass the arguments of a call to the decorator's callables, by parameter name; checked at decoration time.

``estimate=lambda prompt: ...`` on ``def complete(prompt, n=1)`` gets the call's prompt, however it was passed.
``**rest`` gets the other arguments of the call. A callable with ``*args`` is called exactly as the function is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any, Final

from attrs import define

from cycles._errors import InvalidRequestError

_NAMED: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class QuickBinder:
    """Bind the arguments of a call ten times as fast as `Signature.bind`, if each parameter may be passed by name.

    Args:
        signature: The signature of the function.
    """

    __slots__ = ("_defaults", "_is_supported", "_names")

    def __init__(self, signature: Signature) -> None:
        parameters = signature.parameters.values()
        self._names = tuple(parameter.name for parameter in parameters)
        self._defaults = {each.name: each.default for each in parameters if each.default is not Parameter.empty}
        self._is_supported = all(each.kind is Parameter.POSITIONAL_OR_KEYWORD for each in parameters)

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the value of every parameter; None if `Signature.bind` has to do so, or to raise."""
        names = self._names
        if not self._is_supported or len(args) > len(names):
            return None
        values = {**self._defaults, **dict(zip(names, args, strict=False)), **kwargs}
        # Else an argument is missing, unknown or passed twice: `Signature.bind` raises the usual error.
        is_whole = len(values) == len(names) and not any(name in kwargs for name in names[: len(args)])
        return values if is_whole and all(name in values for name in names) else None


@define(eq=False)
class Call:
    """One call of a decorated function: the arguments, and the value of every parameter."""

    _signature: Signature
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    _binder: QuickBinder | None = None
    _named: dict[str, Any] | None = None

    @property
    def named(self) -> dict[str, Any]:
        """Every argument by name, with defaults; those of ``**options`` by their own names.

        Raises:
            TypeError: if the function cannot be called like this; nothing was reserved yet.
        """
        if self._named is None and self._binder is not None:
            self._named = self._binder.bound(self.args, self.kwargs)
        if self._named is None:
            bound = self._signature.bind(*self.args, **self.kwargs)
            bound.apply_defaults()
            self._named = dict(bound.arguments)
            if (collected := _collecting(self._signature)) is not None:
                self._named.update(self._named.pop(collected))
        return self._named

    @property
    def offered(self) -> dict[str, Any]:
        """The values that a callable can have parameters for: `named`, and ``options`` as a whole."""
        collected = _collecting(self._signature)
        if collected is None:
            return self.named
        own = {name: value for name, value in self.named.items() if name not in self._signature.parameters}
        return {collected: own, **self.named}


def _collecting(signature: Signature) -> str | None:
    """The name of the ``**options`` parameter, if there is one."""
    return next((p.name for p in signature.parameters.values() if p.kind is Parameter.VAR_KEYWORD), None)


def signature_of(function: Callable[..., Any]) -> Signature:
    """Return the signature by which arguments are bound.

    Raises:
        InvalidRequestError: Python does not know it, as for some built-in functions.
    """
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise InvalidRequestError(
            f"cannot guard {function!r:.80}: its parameters are unknown; wrap it in a def"
        ) from None


def by_name(what: str, given: Callable[..., Any], function: Signature) -> Callable[[Call], Any]:
    """Return ``(call) -> value`` for a callable whose parameters are arguments of the call.

    Args:
        what: The option's name, for errors: ``estimate``.
        given: The user's callable.
        function: Signature of the decorated function.

    Raises:
        InvalidRequestError: it has a parameter that no call provides; the message names it.
    """
    _reject_coroutine(what, given)
    try:
        parameters = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):
        raise InvalidRequestError(
            f"{what}: the parameters of {given!r:.80} are unknown; use a lambda or a def"
        ) from None
    kinds = {parameter.kind for parameter in parameters}
    if Parameter.VAR_POSITIONAL in kinds:
        return lambda call: given(*call.args, **call.kwargs)
    wanted = [parameter for parameter in parameters if parameter.kind in _NAMED]
    _check_known(what, wanted, function)
    if Parameter.VAR_KEYWORD in kinds:
        return lambda call: _call(given, wanted, call.offered, call.named)
    return lambda call: _call(given, wanted, call.offered, {})


def by_result(given: Callable[..., Any], function: Signature) -> tuple[Callable[[Call, Any, Any], Any], bool]:
    """Return ``(call, result, usage) -> value`` for an ``actual=`` callable, and whether it needs the result.

    Its parameter called ``result``, else its first one that is not ``usage``, gets what the function returned;
    ``usage`` gets the guard's account; the others get the call's arguments by name.

    Raises:
        InvalidRequestError: it has a parameter that no call provides; the message names it.
    """
    _reject_coroutine("actual", given)
    try:
        parameters = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):  # a built-in function: it takes the result
        return (lambda call, result, usage: given(result)), True
    wanted = [parameter for parameter in parameters if parameter.kind in _NAMED]
    if not wanted and any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
        return (lambda call, result, usage: given(result)), True
    names = [parameter.name for parameter in wanted]
    first = "result" if "result" in names else next((name for name in names if name != "usage"), None)
    _check_known("actual", wanted, function, ("usage",) if first is None else ("usage", first))

    def value_of(call: Call, result: Any, usage: Any) -> Any:
        offered = {"usage": usage, **call.offered}
        return _call(given, wanted, offered if first is None else {**offered, first: result}, {})

    return value_of, first is not None


def _call(
    given: Callable[..., Any], wanted: list[Parameter], offered: Mapping[str, Any], rest: Mapping[str, Any]
) -> Any:
    """Call it with the parameters that it has, and with the rest."""
    placed = [offered[p.name] for p in wanted if p.kind is Parameter.POSITIONAL_ONLY]
    named = {p.name: offered[p.name] for p in wanted if p.kind is not Parameter.POSITIONAL_ONLY and p.name in offered}
    known = {parameter.name for parameter in wanted}
    return given(*placed, **named, **{name: value for name, value in rest.items() if name not in known})


def _reject_coroutine(what: str, given: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(getattr(given, "__call__", None)):  # noqa: B004
        raise InvalidRequestError(f"{what}: pass a function, not a coroutine function")


def _check_known(what: str, wanted: list[Parameter], function: Signature, extra: tuple[str, ...] = ()) -> None:
    if _collecting(function) is not None:
        return  # any name may come with a call; the callable itself complains if it does not
    known = {*function.parameters, *extra}
    missing = [p.name for p in wanted if p.name not in known and p.default is Parameter.empty]
    if missing:
        raise InvalidRequestError(
            f"{what} has a parameter {missing[0]!r:.80} that the guarded function does not have: {function}"
        )
