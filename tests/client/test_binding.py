"""Callables given to the decorator get arguments by parameter name, and are checked when a function is decorated."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import pytest

from cycles._core.values.call_arguments import Call, QuickBinder, by_name, by_result, signature_of
from cycles._errors import InvalidRequestError


def sample(prompt: str, n: int = 1, *rest: str, temperature: float = 0.2, **options: Any) -> None: ...


def strict(prompt: str, n: int = 1) -> None: ...


def ask(given: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    signature = inspect.signature(function)
    return by_name("estimate", given, signature)(Call(signature, args, kwargs))


@pytest.mark.parametrize(
    ("given", "args", "kwargs", "value"),
    [
        (lambda prompt: prompt, ("p",), {}, "p"),
        (lambda prompt: prompt, (), {"prompt": "p"}, "p"),
        (lambda n: n, ("p",), {}, 1),
        (lambda n, prompt: (n, prompt), ("p", 3), {}, (3, "p")),
        (lambda temperature: temperature, ("p",), {}, 0.2),
        (lambda temperature: temperature, ("p",), {"temperature": 1}, 1),
        (lambda rest: rest, ("p", 1, "a", "b"), {}, ("a", "b")),
        (lambda seed: seed, ("p",), {"seed": 7}, 7),
        (lambda seed=0: seed, ("p",), {}, 0),
        (lambda prompt, **others: sorted(others), ("p",), {"seed": 7}, ["n", "rest", "seed", "temperature"]),
        (lambda *args, **kwargs: (args, kwargs), ("p",), {"seed": 7}, (("p",), {"seed": 7})),
        (lambda options: options, ("p",), {"seed": 7, "top": 1}, {"seed": 7, "top": 1}),
        (
            lambda options, **others: (options, sorted(others)),
            ("p",),
            {"seed": 7},
            ({"seed": 7}, ["n", "prompt", "rest", "seed", "temperature"]),
        ),
        (
            lambda seed, **others: (seed, sorted(others)),
            ("p",),
            {"seed": 7, "top": 1},
            (7, ["n", "prompt", "rest", "temperature", "top"]),
        ),
        (lambda options: options, (), {"prompt": "p", "n": 2, "seed": 7}, {"seed": 7}),
        (lambda: 5, ("p",), {}, 5),
        (lambda n, /, prompt: (n, prompt), ("p",), {}, (1, "p")),
    ],
)
def test_arguments_are_found_by_name_in_any_position(given: Any, args: Any, kwargs: Any, value: Any) -> None:
    assert ask(given, sample, *args, **kwargs) == value


@pytest.mark.parametrize("given", [lambda promt: 1, lambda prompt, m: 1])
def test_a_parameter_that_the_function_does_not_have_is_rejected_when_decorating(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"estimate has a parameter '(promt|m)'.*not have: \(prompt"):
        by_name("estimate", given, inspect.signature(strict))


def test_functions_whose_parameters_are_unknown_are_rejected_when_decorating() -> None:
    with pytest.raises(InvalidRequestError, match=r"estimate: the parameters of <.*max.*> are unknown; use a lambda"):
        by_name("estimate", max, inspect.signature(strict))
    for unknown in (max, 5):
        with pytest.raises(InvalidRequestError, match="its parameters are unknown; wrap it in a def"):
            signature_of(unknown)  # type: ignore[arg-type]


def test_a_wrong_call_is_the_functions_own_type_error() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'prompt'"):
        ask(lambda prompt: prompt, strict)


@pytest.mark.parametrize(
    ("given", "value", "needs_result"),
    [
        (lambda answer: answer, "R", True),
        (lambda prompt: prompt, "R", True),
        (lambda answer, prompt: (answer, prompt), ("R", "p"), True),
        (lambda prompt, result: (prompt, result), ("p", "R"), True),
        (lambda answer, n, usage: (answer, n, usage), ("R", 1, "U"), True),
        (lambda answer, *, extra=3: (answer, extra), ("R", 3), True),
        (lambda answer, /: answer, "R", True),
        (lambda usage: usage, "U", False),
        (lambda: 5, 5, False),
        (lambda *args: args, ("R",), True),
        (len, 1, True),
        (int, 7, True),
    ],
)
def test_actual_takes_the_result_and_arguments_by_name(given: Any, value: Any, needs_result: bool) -> None:
    signature = inspect.signature(strict)
    actual, needs = by_result(given, signature)
    result = "7" if given is int else "R"
    assert actual(Call(signature, ("p",), {}), result, "U") == value
    assert needs is needs_result


def test_actual_with_a_parameter_that_no_call_has_is_rejected() -> None:
    with pytest.raises(InvalidRequestError, match="actual has a parameter 'cost'"):
        by_result(lambda answer, cost: 1, inspect.signature(strict))


def test_coroutine_functions_are_rejected_as_options() -> None:
    async def later(answer: Any) -> Any: ...

    with pytest.raises(InvalidRequestError, match="actual: pass a function"):
        by_result(later, inspect.signature(strict))
    with pytest.raises(InvalidRequestError, match="estimate: pass a function"):
        by_name("estimate", later, inspect.signature(strict))


def plain(a: int, b: int, c: int = 3, d: int = 4) -> None: ...


def by_position(a: int, /, b: int = 2) -> None: ...


def by_name_only(*, a: int = 1) -> None: ...


def nothing() -> None: ...


CALLS: list[tuple[tuple[int, ...], dict[str, int]]] = [
    (tuple(range(count)), {name: 9 for name, is_given in zip("abcde", given, strict=True) if is_given})
    for count in range(6)
    for given in itertools.product((False, True), repeat=5)
]


def as_python_binds(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any] | None:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    return dict(bound.arguments)


@pytest.mark.parametrize("function", [plain, strict, nothing])
def test_quick_binder_binds_as_python_does(function: Any) -> None:
    signature = inspect.signature(function)
    binder = QuickBinder(signature)
    for args, kwargs in CALLS:
        assert binder.bound(args, kwargs) == as_python_binds(signature, args, kwargs), (args, kwargs)


@pytest.mark.parametrize("function", [by_position, by_name_only, sample])
def test_quick_binder_leaves_other_parameters_to_python(function: Any) -> None:
    binder = QuickBinder(inspect.signature(function))
    assert [binder.bound(args, kwargs) for args, kwargs in CALLS] == [None] * len(CALLS)
