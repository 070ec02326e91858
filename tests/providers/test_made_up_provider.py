"""A provider is one file, one fake, one row and one extra: nothing else of the package knows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.providers._endpoints import find
from cycles.providers._provider import PROVIDERS, provider_named
from cycles.proxy._errors import error_response
from tests.providers import madeup_fake
from tests.providers.conftest import EXACT, USED, Desk

openai: Any = pytest.importorskip("openai")
PACKAGE = Path(cycles.__file__).parent


class MadeUp(openai.OpenAI):  # type: ignore[misc]
    """The SDK of a provider that does not exist."""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "madeup", "tests.providers.madeup_provider")
    monkeypatch.setitem(sys.modules, "cycles.testing._madeup", madeup_fake)


def test_a_made_up_provider_is_charged_exactly(desk: Desk) -> None:
    llm = MadeUp(api_key="k", base_url=f"{desk.provider.url_of('madeup')}/v9", max_retries=0)
    desk.originals.append(llm)
    guarded = desk.guard(llm, max_output_tokens=300)
    desk.provider.reply(usage=USED)
    guarded.post("/think", body={"model": "m", "longest": 500}, cast_to=object)
    assert desk.commits == [(EXACT, {})]
    assert desk.provider.requests[-1].body["longest"] == 300
    guarded.post("/ponder", body={}, cast_to=object)
    assert len(desk.commits) == 1
    with pytest.raises(cycles.InvalidRequestError, match="unmetered="):
        guarded.post("/act", body={"model": "m"}, cast_to=object)


def test_the_proxy_has_the_shape_of_its_errors() -> None:
    assert error_response("madeup", 402, "no budget", "budget_exceeded")[2] == b'{"oops": "no budget"}'
    assert find("madeup", "POST", "/v9/think") == provider_named("madeup").metered["/think"]


def test_no_other_module_compares_the_name_of_a_provider() -> None:
    names = "|".join(name for name in PROVIDERS if name != "madeup")
    compared = re.compile(rf"""[=!]=\s*"(?:{names})"|"(?:{names})"\s*[=!]=""")
    own = {provider_named(name).__file__ for name in PROVIDERS}  # type: ignore[attr-defined]
    for folder in ("providers", "proxy"):
        for file in sorted((PACKAGE / folder).glob("*.py")):
            if str(file) not in own:
                assert compared.findall(file.read_text("utf-8")) == [], file.name
