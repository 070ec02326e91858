"""An admin client in a forked child: it uses connections of its own, and keeps them."""

from __future__ import annotations

import os

import pytest

from cycles.admin import Admin
from tests.support.stub import Stub, ok

from .scripted import KEY, TENANT


def test_a_forked_child_has_one_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub(ok(TENANT)) as stub, Admin(stub.url, KEY) as admin:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        for _ in range(3):
            admin.tenant("acme")
        assert stub.connections == 1
