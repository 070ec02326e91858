"""The API key is in no frame of an error that leaves the SDK: error trackers record local variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import cycles

KEY = "cyc_live_hunter2"


def frames_of_the_sdk(error: BaseException | None, seen: set[int] | None = None) -> Iterator[FrameType]:
    """The frames of an error, its cause and its context, without those of this test."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename != __file__:
            yield traceback.tb_frame
        traceback = traceback.tb_next
    yield from frames_of_the_sdk(error.__cause__, seen)
    yield from frames_of_the_sdk(error.__context__, seen)


def shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return repr(error)


def assert_no_key(error: BaseException) -> None:
    for frame in frames_of_the_sdk(error):
        for name, value in frame.f_locals.items():
            assert KEY not in shown(value), f"{frame.f_code.co_qualname}: {name}"


WRONG: list[dict[str, Any]] = [
    {"timeout": -1},
    {"timeout": "soon"},
    {"base_url": "nowhere"},
    {"no_such_setting": 1},
    {"tenant": 5},
    {"journal_dir": 5},
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    "make", [cycles.Cycles, cycles.Config, cycles.Config.from_env], ids=["Cycles", "Config", "env"]
)
def test_an_error_of_the_configuration_has_no_key_in_its_frames(
    make: Callable[..., object], wrong: dict[str, Any]
) -> None:
    if make is cycles.Config and "no_such_setting" in wrong:
        pytest.skip("Python itself raises the TypeError before any frame of the SDK")
    with pytest.raises(cycles.ConfigurationError) as caught:
        make(**{"base_url": "http://localhost", "api_key": KEY, **wrong})
    assert_no_key(caught.value)


def test_a_key_that_cannot_be_sent_is_in_no_frame() -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        cycles.Cycles(base_url="http://localhost", api_key=f"{KEY}\n")
    assert KEY not in str(caught.value)
    assert_no_key(caught.value)
