"""Show the operations of the client in the reference as the methods that they are.

`decide = blocking(operations.decide)` is an attribute to a program that only reads code. This extension of griffe puts
the function of `cycles/_client/operations.py` in its place, without its first parameter.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import griffe

_COROUTINES: Final = {"suspending"}
_MAKERS: Final = {"blocking", "iterating", "suspending", "iterating_async"}


class Operations(griffe.Extension):
    """Replace each attribute that is made from an operation by a function with its signature and docstring."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Visit every class of the package once it is loaded."""
        for name in ("_client.client", "admin"):
            if name.partition(".")[0] in pkg.members:
                self._visit(pkg[name], pkg)

    def _visit(self, found: griffe.Object | griffe.Alias, package: griffe.Module) -> None:
        for name, member in list(found.members.items()):
            if member.is_alias:
                continue
            if member.is_class or member.is_module:
                self._visit(member, package)
            elif isinstance(member, griffe.Attribute) and isinstance(member.value, griffe.ExprCall):
                maker, made_of = str(member.value.function), [str(value) for value in member.value.arguments]
                if maker in _MAKERS and made_of and made_of[0].startswith("operations."):
                    operation = package[f"_client.{made_of[0]}"]
                    found.set_member(name, _method(operation, name, asynchronous=maker in _COROUTINES))


def _method(operation: griffe.Object | griffe.Alias, name: str, *, asynchronous: bool) -> griffe.Function:
    assert isinstance(operation, griffe.Function)
    method = copy.copy(operation)
    method.name = name
    method.parameters = griffe.Parameters(*list(operation.parameters)[1:])
    method.labels = set(operation.labels) - {"async"} | ({"async"} if asynchronous else set())
    return method
