"""Verify that nothing of the document is missing from a generated tree, by using the tree.

Every schema needs a class that has its members and returns the value it was made from. Every operation needs a module
that builds its request with all parameters, and reads its response. A piece that is missing, or that became `Any`
although the document says more, is an error that names it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Final, get_args, get_origin

import attrs
import httpx
from openapi_python_client.strings import ClassName, PythonIdentifier

from generator import GenerationError
from generator.document import Json, Operation, json_schema, operations_of, resolve, schemas_of, success_of
from generator.samples import Samples

_ARGUMENTS: Final[dict[Any, Any]] = {
    str: "text",
    int: 7,
    float: 1.5,
    bool: True,
    date: date(2026, 1, 2),
    datetime: datetime.fromisoformat("2026-01-02T03:04:05+00:00"),
    uuid.UUID: uuid.UUID(int=7),
}
_ANY: Final = re.compile(r"\bAny\b")
# A prepared schema with one of these keywords allows less than "anything".
_SAYS_SOMETHING: Final = ("type", "$ref", "properties", "allOf", "anyOf", "oneOf", "enum")


def check(tree: Path, ready: Json, class_names: dict[str, str]) -> None:
    """Raise a `GenerationError` that lists everything that is missing or does not work, if there is any."""
    with imported(tree) as package:
        inspector = Inspector(package, ready, class_names)
        problems = [*inspector.schema_problems(), *inspector.operation_problems()]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise GenerationError(
            f"the generated code is not sound:\n{lines}\n"
            "rename or reshape what is named, or add a rule for its shape to generator/rules/ (docs/regenerating.md)"
        )


@contextmanager
def imported(tree: Path) -> Iterator[str]:
    """Import a tree under a unique name, so that an installed package with the same name is not replaced."""
    name = f"generated_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(name, tree / "__init__.py", submodule_search_locations=[str(tree)])
    if spec is None or spec.loader is None:
        raise GenerationError(f"{tree} contains no package")
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    package = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(package)
        yield name
    finally:
        sys.dont_write_bytecode = writes_bytecode
        for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[loaded]


class Inspector:
    """Compare one imported tree with its document."""

    def __init__(self, package: str, ready: Json, class_names: dict[str, str]) -> None:
        self.package = package
        self.ready = ready
        self.class_names = class_names
        self.samples = Samples(schemas_of(ready))

    def module(self, name: str) -> ModuleType:
        """Import a module of the tree."""
        return importlib.import_module(f"{self.package}.{name}")

    def schema_problems(self) -> Iterator[str]:
        """Return what is wrong with the models, one line each."""
        for name, schema in schemas_of(self.ready).items():
            if _is_model(schema):
                yield from self._model_problems(name, schema)
            elif "enum" in schema and "$ref" not in schema:
                yield from self._enum_problems(name, schema)

    def _class(self, name: str) -> Any:
        generated = str(ClassName(name, "field_"))
        return getattr(self.module("models"), self.class_names.get(generated, generated), None)

    def _enum_problems(self, name: str, schema: Json) -> Iterator[str]:
        enum = self._class(name)
        if enum is None:
            yield f"schema {name}: no class was generated"
            return
        known = {member.value for member in enum}
        yield from (f"schema {name}: value {value!r} is missing" for value in schema["enum"] if value not in known)

    def _model_problems(self, name: str, schema: Json) -> Iterator[str]:
        model = self._class(name)
        if model is None:
            yield f"schema {name}: no class was generated"
            return
        yield from self._degraded(name, model, schema)
        for full in (True, False):
            if problem := self._does_not_return(model, self.samples.of(schema, full=full)):
                yield f"schema {name}: {problem}"
                return

    def _degraded(self, name: str, model: Any, schema: Json) -> Iterator[str]:
        types = [str(field.type) for field in attrs.fields(model)]
        untyped = [type_name for type_name in types if _ANY.search(type_name) and not type_name.startswith("dict[")]
        allowed = [member for member in schema.get("properties", {}).values() if self._may_be_any(member)]
        if "allOf" not in schema and len(untyped) > len(allowed):
            yield f"schema {name}: {len(untyped) - len(allowed)} of its members became Any"

    def _may_be_any(self, member: Json) -> bool:
        target = resolve(self.ready, member)
        if not any(key in target for key in _SAYS_SOMETHING):
            return True
        parts = [target.get("items"), *(part for key in ("allOf", "anyOf", "oneOf") for part in target.get(key, []))]
        return any(self._may_be_any(part) for part in parts if isinstance(part, dict))

    def _does_not_return(self, model: Any, sample: Json) -> str | None:
        try:
            returned = model.from_dict(json.loads(json.dumps(sample))).to_dict()
        except Exception as error:  # generated code that fails on a valid value may raise anything
            return f"cannot read a valid value ({type(error).__name__}: {error})"
        if returned != sample:
            lost = sorted(set(sample) ^ set(returned)) or sorted(key for key in sample if sample[key] != returned[key])
            return f"does not return the value it was made from (look at: {', '.join(lost)})"
        return None

    def operation_problems(self) -> Iterator[str]:
        """Return what is wrong with the endpoint functions, one line each."""
        modules: dict[str, str] = {}
        for operation in operations_of(self.ready):
            where = f"operation {operation.operation_id}"
            if operation.operation_id in modules.values():
                yield f"{where}: another operation has the same operationId; give one another operationId"
            if operation.module in modules:
                yield f"{where}: shares its module with {modules[operation.module]}; give one another operationId"
            modules[operation.module] = operation.operation_id
            try:
                module = self.module(operation.module)
            except (ImportError, SyntaxError) as error:
                yield f"{where}: no module was generated ({error})"
                continue
            yield from (f"{where}: {problem}" for problem in self._request_problems(module, operation))
            yield from (f"{where}: {problem}" for problem in self._response_problems(module, operation))

    def _request_problems(self, module: ModuleType, operation: Operation) -> Iterator[str]:
        try:
            request = module._get_kwargs(**self._arguments(module._get_kwargs, operation))
        except Exception as error:  # as above: generated code, a valid call
            yield f"cannot build a request ({type(error).__name__}: {error})"
            return
        if request["method"] != operation.method:
            yield f"sends {request['method']}"
        sent = {
            "query": set(request.get("params", {})),
            "header": set(request.get("headers", {})),
            "cookie": set(request.get("cookies", {})),
        }
        for parameter in operation.parameters:
            if (
                parameter["in"] in sent
                and parameter["name"] not in sent[parameter["in"]]
                and not self._is_spread(parameter)
            ):
                yield f"parameter {parameter['name']} is not sent"

    def _is_spread(self, parameter: Json) -> bool:
        schema = resolve(self.ready, parameter.get("schema", {}))
        alias = schema.get("allOf", []) if "properties" not in schema else []
        return _is_model(resolve(self.ready, alias[0]) if len(alias) == 1 else schema)

    def _arguments(self, function: Callable[..., Any], operation: Operation) -> Json:
        """Return an argument for every parameter, of the type that its annotation names."""
        hints = inspect.signature(function).parameters
        return {name: self._argument(name, _first_type(hint.annotation), operation) for name, hint in hints.items()}

    def _argument(self, name: str, kind: Any, operation: Operation) -> Any:
        if get_origin(kind) is list:
            return [self._argument(name, _first_type(get_args(kind)[0]), operation)]
        if kind is Any:
            return "text"
        if kind in _ARGUMENTS:
            return _ARGUMENTS[kind]
        if issubclass(kind, Enum):
            return next(iter(kind))
        schema = json_schema((operation.body or {}).get("content")) if name == "body" else None
        for parameter in operation.parameters:
            if name.startswith(str(PythonIdentifier(parameter["name"], "field_"))):
                schema = parameter["schema"]
        if not hasattr(kind, "from_dict"):  # a file
            return kind(payload=io.BytesIO(b"bytes"))
        value = self.samples.of(schema or {}, full=True)
        while isinstance(value, list):
            value = value[0]
        return kind.from_dict(value)

    def _response_problems(self, module: ModuleType, operation: Operation) -> Iterator[str]:
        status, schema = success_of(operation)
        if schema is None or not _is_model(resolve(self.ready, schema)):
            return
        sample = self.samples.of(schema, full=True)
        client = self.module("client").Client(base_url="http://localhost")
        response = module._build_response(client=client, response=httpx.Response(status, json=sample))
        if response.parse_error is not None or response.parsed is None:
            yield f"cannot read a valid response ({response.parse_error!r})"
        elif (returned := self._returned(response.parsed)) != sample:
            failed = f" ({returned})" if isinstance(returned, str) else ""
            yield f"does not return the response it was made from{failed}"

    def _returned(self, model: Any) -> Json | str:
        try:
            returned: Json = model.to_dict()
        except Exception as error:  # as above: a member may have the name of something in the generated code
            return f"{type(error).__name__}: {error}"
        return returned


def _first_type(annotation: Any) -> Any:
    """Return the first alternative of an annotation. In endpoint modules it is never a string."""
    if not isinstance(annotation, UnionType):
        return annotation
    return next(kind for kind in get_args(annotation) if kind is not NoneType)


def _is_model(schema: Json) -> bool:
    """Return whether the generator makes a class with members of this schema."""
    if "$ref" in schema or "anyOf" in schema or "oneOf" in schema:
        return False
    parts = schema.get("allOf", [])
    alias = len(parts) == 1 and "$ref" in parts[0]
    return not alias and (bool(parts) or "properties" in schema or schema.get("type") == "object")
