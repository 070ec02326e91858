"""Options of `reserve`, `guarded` and `lease_series`, and settings of a client, are the same everywhere."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest
from attrs import fields_dict

import cycles
from cycles._client import options
from cycles._core.messages.reserve_request import ReserveRequest

INTERNAL = {  # not set by callers
    "settlement_metadata",
    "max_retries",
    "is_chunk",
    "is_approved",
    "reports_denial",
    "made",
}


def parameters(function: object) -> set[str]:
    assert callable(function)
    return {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    } - {"self"}


RESERVE = parameters(cycles.Cycles.reserve)
ACTION = ("llm.completion", "gpt-4o")


def test_a_reserve_request_has_every_option_of_reserve() -> None:
    assert set(fields_dict(ReserveRequest)) - INTERNAL == RESERVE


def test_guarded_takes_every_option_of_reserve() -> None:
    assert parameters(cycles.Cycles.guarded) | set(options.GuardedOptions.__annotations__) == RESERVE
    assert parameters(cycles.guarded) == parameters(cycles.Cycles.guarded)


def test_a_series_takes_every_option_of_reserve_but_a_key_and_an_actual() -> None:
    taken = parameters(cycles.Cycles.lease_series) | set(options.SeriesOptions.__annotations__)
    assert taken == RESERVE - {"idempotency_key", "actual"} | {"part_ms"}


def test_the_options_of_a_series_have_the_types_of_reserve() -> None:
    reserve = inspect.signature(cycles.Cycles.reserve).parameters
    assert {"subject", "ttl_ms"} <= options.SeriesOptions.__annotations__.keys()
    for name, annotation in options.SeriesOptions.__annotations__.items():
        assert annotation.__forward_arg__ == reserve[name].annotation, name


def test_every_setting_can_be_a_keyword_of_the_client() -> None:
    assert set(options.Settings.__annotations__) == set(fields_dict(cycles.Config))


def test_a_keyword_of_the_client_has_the_type_of_its_setting_or_is_none() -> None:
    import os

    keywords = get_type_hints(options.Settings)
    assert "journal_dir" in keywords
    for name, hint in get_type_hints(cycles.Config, vars(inspect.getmodule(cycles.Config.with_settings))).items():
        wanted = hint | None
        if name == "journal_dir":
            wanted = str | os.PathLike[str] | None
        assert keywords[name] == wanted, name


def test_every_setting_is_documented() -> None:
    documented = cycles.Config.__doc__ or ""
    assert [name for name in fields_dict(cycles.Config) if name not in documented] == []
    assert "no_such_setting" not in documented


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda client: client.reserve(cycles.tokens(1), action=ACTION, wayt=3), "wait"),
        (lambda client: client.lease_series(cycles.tokens(1), action=ACTION, metdata={}), "metadata"),
        (lambda client: client.pool(cycles.tokens(1), action=ACTION, chnk=3), "chunk"),
        (lambda client: client.attach("token", actul=3), "actual"),
        (lambda client: client.guarded(cycles.tokens(1), action=ACTION, subjekt=3), "subject"),
    ],
)
def test_an_unknown_option_names_the_one_that_may_be_meant(call: Any, meant: str) -> None:
    client = cycles.Cycles(base_url="http://localhost:1", api_key="cyc_live_x", tenant="acme", journal=False)
    with client, pytest.raises(TypeError, match=rf"has no option .* did you mean {meant}\?$"):
        call(client)
