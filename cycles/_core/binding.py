"""How the decorator's callables meet a call: bound by parameter name, defaults applied, checked at decoration time.

``estimate=lambda prompt: ...`` on ``def ask(prompt, n=1)`` gets the call's prompt, however it was passed. ``**rest``
gets what else the call has; a callable with ``*args`` is called exactly as the function is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any, Final

from cycles._errors import InvalidRequestError

_NAMED: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Call:
    """One call of a decorated function: what was passed, and what every parameter came to be."""

    __slots__ = ("_named", "_signature", "args", "kwargs")

    def __init__(self, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._signature = signature
        self._named: dict[str, Any] | None = None
        self.args = args
        self.kwargs = kwargs

    @property
    def named(self) -> dict[str, Any]:
        """Every argument by name, defaults applied, those of ``**kwargs`` among them.

        Raises:
            TypeError: if the function cannot be called like this; nothing was reserved yet.
        """
        if self._named is None:
            bound = self._signature.bind(*self.args, **self.kwargs)
            bound.apply_defaults()
            self._named = dict(bound.arguments)
            for parameter in self._signature.parameters.values():
                if parameter.kind is Parameter.VAR_KEYWORD:
                    self._named.update(self._named.pop(parameter.name))
        return self._named


def signature_of(function: Callable[..., Any]) -> Signature:
    """The signature arguments are bound by.

    Raises:
        InvalidRequestError: if Python cannot tell, as for some built-in functions.
    """
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise InvalidRequestError(f"cannot guard {function!r}: its parameters are unknown; wrap it in a def") from None


def by_name(what: str, given: Any, function: Signature, extra: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Make ``(call, **extras) -> value`` of a callable that asks for a call's arguments.

    Args:
        what: The option's name, for errors: ``estimate``.
        given: The user's callable.
        function: Signature of the decorated function.
        extra: Names that are offered besides the function's own parameters, for example ``usage``.

    Raises:
        InvalidRequestError: if it asks for what no call will have, naming it.
    """
    _refuse_coroutine(what, given)
    try:
        asked = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):
        raise InvalidRequestError(f"{what}: the parameters of {given!r} are unknown; use a lambda or a def") from None
    if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in asked):
        return lambda call, **extras: given(*call.args, **call.kwargs)
    wanted = [parameter for parameter in asked if parameter.kind in _NAMED]
    _check_known(what, wanted, function, extra)
    rest = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in asked)
    positional = [parameter.name for parameter in wanted if parameter.kind is Parameter.POSITIONAL_ONLY]
    names = {parameter.name for parameter in wanted} - set(positional)

    def ask(call: Call, **extras: Any) -> Any:
        offered = {**extras, **call.named}
        passed = offered if rest else {name: offered[name] for name in names if name in offered}
        return given(
            *(offered[name] for name in positional), **{n: v for n, v in passed.items() if n not in positional}
        )

    return ask


def _refuse_coroutine(what: str, given: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(getattr(given, "__call__", None)):  # noqa: B004
        raise InvalidRequestError(f"{what}: give a plain callable, not a coroutine function; it answers at once")


def _check_known(what: str, wanted: list[Parameter], function: Signature, extra: tuple[str, ...]) -> None:
    parameters = function.parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return  # any name may come with a call; the callable itself complains if it does not
    known = {*function.parameters, *extra}
    missing = [p.name for p in wanted if p.name not in known and p.default is Parameter.empty]
    if missing:
        raise InvalidRequestError(
            f"{what} asks for {missing[0]!r}, which the guarded function does not have: its parameters are {function}"
        )


def by_result(given: Callable[..., Any], function: Signature) -> tuple[Callable[..., Any], bool]:
    """Make ``(call, result, usage) -> value`` of an ``actual=`` callable, and tell whether it needs the result.

    Its parameter called ``result``, else its first one that is not ``usage``, gets what the function returned;
    ``usage`` gets the guard's account; the others get the call's arguments by name.

    Raises:
        InvalidRequestError: if it asks for what no call will have, naming it.
    """
    _refuse_coroutine("actual", given)
    try:
        asked = [p for p in inspect.signature(given).parameters.values() if p.kind in _NAMED]
    except (TypeError, ValueError):
        return (lambda call, result, usage: given(result)), True
    names = [parameter.name for parameter in asked]
    if any(p.kind is Parameter.VAR_POSITIONAL for p in inspect.signature(given).parameters.values()) and not names:
        return (lambda call, result, usage: given(result)), True
    first = "result" if "result" in names else next((name for name in names if name != "usage"), None)
    offered = () if first is None else (first,)
    _check_known("actual", asked, function, (*offered, "usage"))

    def ask(call: Call, result: Any, usage: Any) -> Any:
        values: Mapping[str, Any] = {"usage": usage, **call.named, **dict.fromkeys(offered, result)}
        positional = [values[p.name] for p in asked if p.kind is Parameter.POSITIONAL_ONLY]
        named = {p.name: values[p.name] for p in asked if p.kind is not Parameter.POSITIONAL_ONLY and p.name in values}
        return given(*positional, **named)

    return ask, first is not None
