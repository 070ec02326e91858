"""Show the methods of the clients in the reference as the methods that they are, and the rule behind each name.

`decide = blocking(operations.decide)` is an attribute to a program that only reads code. This extension of griffe puts
the function in its place, without its first parameter. `website/rules.py` says where the rules are.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import griffe

from website import reference, rules

_COROUTINES: Final = {"suspending", "awaiting"}
_MAKERS: Final = {"blocking", "iterating", "iterating_async"} | _COROUTINES


class Operations(griffe.Extension):
    """Replace each attribute that is made from an operation by a function, and add the rules."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Visit the clients of the package, and its public names, once it is loaded."""
        for name in ("_client.client", "admin._client"):
            if name.partition(".")[0] in pkg.members:
                self._visit(pkg[name])
        if pkg.name == "cycles":
            _add_rules(pkg)

    def _visit(self, module: griffe.Object | griffe.Alias) -> None:
        for found in module.members.values():
            if found.is_alias or not found.is_class:
                continue
            for name, member in list(found.members.items()):
                value = getattr(member, "value", None)
                if isinstance(value, griffe.ExprCall) and str(value.function) in _MAKERS:
                    operation = _function(module, str(value.arguments[0]))
                    found.set_member(name, _method(operation, name, asynchronous=str(value.function) in _COROUTINES))


def _function(module: griffe.Object | griffe.Alias, name: str) -> griffe.Function:
    """Return the function that a module calls `name`, such as `operations.decide`."""
    first, _, rest = name.partition(".")
    path = module.resolve(first) + (f".{rest}" if rest else "")
    operation = module.modules_collection[path]
    assert isinstance(operation, griffe.Function)
    return operation


def _method(operation: griffe.Function, name: str, *, asynchronous: bool) -> griffe.Function:
    method = copy.copy(operation)
    method.name = name
    method.parameters = griffe.Parameters(*list(operation.parameters)[1:])
    method.labels = set(operation.labels) - {"async"} | ({"async"} if asynchronous else set())
    method.docstring = copy.copy(operation.docstring)
    return method


def _add_rules(package: griffe.Module) -> None:
    """Add its rule to each public name, and to the members that have one of their own."""
    found, done = rules.by_name(), set[int]()
    for page, names in reference.names_by_page().items():
        for module, name in names:
            known = package[f"{module}.{name}".removeprefix("cycles.")]
            _add(known, found.pop(name, rules.OF_PAGES[page]), done)
            for member in [each for each in found if each.partition(".")[0] == name and "." in each]:
                _add(known.all_members[member.partition(".")[2]], found.pop(member), done)
    assert not found, f"website/rules.py has names that are not public: {', '.join(found)}"


def _add(known: griffe.Object | griffe.Alias, target: str, done: set[int]) -> None:
    while known.is_alias:
        known = known.final_target  # type: ignore[union-attr]
    docstring = known.docstring
    if docstring is not None and id(docstring) not in done:
        done.add(id(docstring))
        docstring.value = f"{docstring.value.rstrip()}\n\n{rules.sentence(target)}"
