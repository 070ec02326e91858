"""Changed protocol documents: small changes of `openapi.yaml`, each with a check of the generated client.

A mutation is a function that changes a document and returns its check. Mutations of one group do not touch the same
places, so one run of the generator serves all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import httpx

Json = dict[str, Any]


@dataclass(frozen=True)
class Tree:
    """An imported tree, for a check."""

    package: str

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self.package}.{name}")

    def model(self, name: str) -> Any:
        """Return a class of the tree. Raises AttributeError if it has none of that name."""
        return getattr(self.module("models"), name)

    @property
    def protocol(self) -> Any:
        return self.module("protocol")

    def call(self, operation_id: str, reply: httpx.Response, **arguments: Any) -> tuple[httpx.Request, Any]:
        """Call an operation with the generated functions. Return the request that was sent, and the `Response`."""
        sent: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return reply

        module = self.module(self.protocol.OPERATIONS[operation_id]["module"])
        client = self.module("client").AuthenticatedClient("http://localhost", token="t")
        with httpx.Client(base_url="http://localhost", transport=httpx.MockTransport(handle)) as http:
            client.set_httpx_client(http)
            response = module.sync_detailed(client=client, **arguments)
        return sent[0], response


Check = Callable[[Tree], None]


@dataclass(frozen=True)
class Mutation:
    """A change, and the group that it is generated with."""

    name: str
    group: str
    change: Callable[[Json], Check]


MUTATIONS: list[Mutation] = []


def mutation(group: str) -> Callable[[Callable[[Json], Check]], Callable[[Json], Check]]:
    """Add a change to the matrix."""

    def add(change: Callable[[Json], Check]) -> Callable[[Json], Check]:
        MUTATIONS.append(Mutation(change.__name__, group, change))
        return change

    return add


def schemas(spec: Json) -> Json:
    found: Json = spec["components"]["schemas"]
    return found


def members(spec: Json, name: str) -> Json:
    found: Json = schemas(spec)[name]["properties"]
    return found


def reads(tree: Tree, name: str, value: Json) -> Any:
    """Read a model from a value, check that it returns the same value, and return the model."""
    model = tree.model(name).from_dict(value)
    assert model.to_dict() == value
    return model


def responding(schema: Json) -> Json:
    """Return a minimal set of responses."""
    return {"200": {"description": "fine", "content": {"application/json": {"schema": schema}}}}


for _kind in ("corners", "evolving", "shapes", "surface", "writing"):
    importlib.import_module(f".{_kind}", __name__)
