"""Compare operations and their parameters. The schemas are compared in `schemas.py`."""

from __future__ import annotations

from collections.abc import Iterator

from generator.diff import Change
from generator.diff.schemas import SchemaComparison
from generator.diff.values import SENT
from generator.document import Json
from generator.protocol import Tables


def changes(old: Tables, new: Tables) -> list[Change]:
    """Return all differences: operations first, then schemas, in the order of the documents."""
    schemas = SchemaComparison(old, new)
    return [*OperationComparison(old, new, schemas).changes(), *schemas.changes()]


class OperationComparison:
    """Compares the operations of two documents."""

    def __init__(self, old: Tables, new: Tables, schemas: SchemaComparison) -> None:
        self.old = old
        self.new = new
        self.schemas = schemas

    def changes(self) -> Iterator[Change]:
        """Return operations that were added, removed, renamed or changed."""
        removed = [name for name in self.old.operations if name not in self.new.operations]
        added = [name for name in self.new.operations if name not in self.old.operations]
        for name in removed:
            twin = next((other for other in added if self._at_same_place(name, other)), None)
            if twin:
                added.remove(twin)
                reason = "the generated module and the key of the operation table have another name"
                yield Change("operation", "renamed", name, f"now {twin}", True, reason, (quoted(name),))
                yield from self._operation(name, twin)
            else:
                place = self._place(self.old, name)
                yield Change("operation", "removed", name, place, True, "calls to it fail", (quoted(name),))
        for name in added:
            reason = "client.raw can call it; generator/coverage.py needs an entry with the method that offers it"
            yield Change("operation", "added", name, self._place(self.new, name), reason=reason)
        for name in self.old.operations:
            if name in self.new.operations:
                yield from self._operation(name, name)

    def _at_same_place(self, old: str, new: str) -> bool:
        return self._place(self.old, old) == self._place(self.new, new)

    @staticmethod
    def _place(tables: Tables, name: str) -> str:
        entry = tables.operations[name]
        return f"{entry['method']} {entry['path']}"

    def _operation(self, old_name: str, name: str) -> Iterator[Change]:
        old, new = self.old.operations[old_name], self.new.operations[name]
        for key, breaks in (
            ("method", "calls to it fail"),
            ("path", "calls to it fail"),
            ("success", "old clients do not accept the new status as success"),
            ("other_success", "old clients do not accept the new status as success"),
            ("module", "the generated functions have moved"),
        ):
            if old.get(key) != new.get(key) and not (key == "module" and old_name != name):
                detail = f"{key}: {old.get(key)} -> {new.get(key)}"
                yield Change("operation", "changed", name, detail, True, breaks, (quoted(name),))
        for key in ("request", "response"):
            if self.schemas.renamed.get(old[key], old[key]) != new[key]:
                detail = f"{key} schema: {old[key]} -> {new[key]}"
                yield Change("operation", "changed", name, detail, True, f"another {key} altogether", (quoted(name),))
        yield from self._security(name, old["security"], new["security"])
        yield from self._parameters(name, old["parameters"], new["parameters"])

    @staticmethod
    def _security(name: str, old: list[str], new: list[str]) -> Iterator[Change]:
        if old == new:
            return
        detail = f"{', '.join(old) or 'public'} -> {', '.join(new) or 'public'}"
        if not old:
            reason = "old clients send no key, and the server rejects such requests"
            yield Change("security", "added", name, detail, True, reason, (quoted(name),))
        elif not new:
            reason = "clients of the new version send no key, and servers of the old version reject such requests"
            yield Change("security", "removed", name, detail, True, reason, (quoted(name),))
        else:
            breaking = not set(old) <= set(new)
            reason = "a key that was accepted may be rejected" if breaking else ""
            yield Change("security", "changed", name, detail, breaking, reason, (quoted(name),))

    def _parameters(self, name: str, old: list[Json], new: list[Json]) -> Iterator[Change]:
        before = {(parameter["in"], parameter["name"]): parameter for parameter in old}
        after = {(parameter["in"], parameter["name"]): parameter for parameter in new}
        for key, parameter in before.items():
            where = f"{name}, {key[0]} parameter {key[1]}"
            if key not in after:
                yield Change(
                    "parameter", "removed", where, "", True, "servers may reject it, code may pass it", (key[1],)
                )
            else:
                yield from self._parameter(where, parameter, after[key])
        for key, parameter in after.items():
            if key not in before:
                where, needed = f"{name}, {key[0]} parameter {key[1]}", parameter["required"]
                reason = "old clients do not send it" if needed else ""
                detail = "required" if needed else "optional"
                yield Change("parameter", "added", where, detail, needed, reason, (quoted(name),))

    def _parameter(self, where: str, old: Json, new: Json) -> Iterator[Change]:
        if old["required"] != new["required"]:
            detail = "now required" if new["required"] else "now optional"
            reason = "old clients do not send it" if new["required"] else ""
            yield Change("parameter", "changed", where, detail, new["required"], reason, (new["name"],))
        if old.get("explode") != new.get("explode"):
            reason = "several values are encoded differently"
            yield Change("parameter", "changed", where, f"explode: {new.get('explode')}", True, reason, (new["name"],))
        yield from self.schemas.compare(where, old["schema"], new["schema"], {SENT}, (new["name"],))


def quoted(operation_id: str) -> str:
    """Return an operation id in quotes, as code mentions it: without them it may be a common word."""
    return f'"{operation_id}"'
