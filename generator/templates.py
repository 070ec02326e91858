"""The generator's own templates, edited where its output is unsound. Nothing of them is copied into this project.

An edit names a piece of the installed template (its anchor), which has to occur exactly once: where a new version of
the generator moved it, generation stops and says which. Four short templates are replaced whole (`templates/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from generator import GenerationError
from generator.document import Json

REPLACEMENTS: Final = Path(__file__).parent / "templates"
# Seconds. Without it the generated client would hand httpx `None`, which is no timeout at all.
DEFAULT_TIMEOUT: Final = 5.0


@dataclass(frozen=True)
class Edit:
    """One change to one installed template."""

    template: str
    why: str
    anchor: str
    replacement: str


_HELPERS: Final = '''
    def __reduce__(self) -> str:
        # By name: copies and pickles are the one UNSET, which is compared by identity.
        return "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Unset = Unset()

E = TypeVar("E", bound=Enum)


def present(value: Any) -> Any:
    """An optional member that is null counts as absent."""
    return UNSET if value is None else value


def unknown_member(enum: type[E], plain: Any, value: object) -> E | None:
    """A member for a value newer than this client; None, so a ValueError, for a value of another type."""
    if not isinstance(value, plain) or isinstance(value, bool):
        return None
    member: E = plain.__new__(enum, value)
    member._name_ = str(value)
    member._value_ = value
    return member


def is_known_member(member: Enum) -> bool:
    """Whether the document this client was generated from has this value."""
    return member.value in type(member)._value2member_map_
'''

_BUILD_RESPONSE: Final = """    parsed = None
    parse_error: Exception | None = None
    try:
        parsed = _parse_response(client=client, response=response)
    except PARSE_ERRORS as error:
        parse_error = error
    return Response(
        status_code=response.status_code,
        content=response.content,
        headers=response.headers,
        parsed=parsed,
        parse_error=parse_error,
    )
"""

_PROPERTY_WORDS: Final = """        {% set source = (model.data.properties or {}).get(property.name) %}
        {% set words = (source.description if source else none) or property.description or "" %}
        {% set line %}{{ property.python_name }} ({{ property.get_type_string() | safe_for_docstring }}): \
{{ words | safe_for_docstring }}{% endset %}
        {{ line | wordwrap(112) | indent(12) }}"""

_OPTIONAL_SOURCE: Final = """{% set popped = 'd.pop("' + (property.name | in_double_quote_literal) + '", UNSET)' %}
        {% set nullable = "None" in (property.get_type_string() | as_unembedded_code).split(" | ") %}
        {% set property_source = popped if nullable else "present(" + popped + ")" %}"""


# For every document: what stock generated code gets wrong whatever it is generated from.
EDITS: Final = (
    Edit(
        "types.py.jinja",
        "UNSET survives copy and pickle; helpers for null and for unknown enum values",
        "\n\nUNSET: Unset = Unset()\n",
        "\n" + _HELPERS,
    ),
    Edit(
        "types.py.jinja",
        "any status, also unregistered ones such as 520",
        "status_code: HTTPStatus",
        "status_code: int",
    ),
    Edit(
        "types.py.jinja",
        "a body that cannot be read is reported beside the status",
        "    parsed: T | None\n",
        """    parsed: T | None
    parse_error: Exception | None = None


# What reading an answer that is not what the document says can raise.
PARSE_ERRORS = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
""",
    ),
    Edit("types.py.jinja", "names the helpers use", "from http import HTTPStatus\n", "from enum import Enum\n"),
    Edit(
        "types.py.jinja",
        "names the helpers use",
        "from typing import BinaryIO,",
        "from typing import Any, BinaryIO,",
    ),
    Edit(
        "types.py.jinja",
        "the helpers are part of the module",
        '"RequestFiles", "Response", "Unset"]',
        '"RequestFiles", "Response", "Unset", "present", "unknown_member", "is_known_member", "PARSE_ERRORS"]',
    ),
    Edit(
        "model.py.jinja",
        "an optional member that is null counts as absent",
        """{% set property_source = 'd.pop("' + (property.name | in_double_quote_literal) + '", UNSET)' %}""",
        _OPTIONAL_SOURCE,
    ),
    Edit(
        "model.py.jinja",
        "as above",
        "from ..types import UNSET, Unset\n",
        "from ..types import UNSET, Unset, present\n",
    ),
    Edit(
        "model.py.jinja",
        "a member that refers to a schema shows its own words, not those of the schema",
        "        {{ property.to_docstring() | wordwrap(112) | indent(12) }}",
        _PROPERTY_WORDS,
    ),
    Edit(
        "endpoint_module.py.jinja",
        "a status is a number, and a body that cannot be read raises nothing",
        """    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )
""",
        _BUILD_RESPONSE,
    ),
    Edit(
        "endpoint_module.py.jinja",
        "httpx warns of cookies per request, also of none",
        '"cookies": cookies,',
        '**({"cookies": cookies} if cookies else {}),',
    ),
    Edit("endpoint_module.py.jinja", "no longer used", "from http import HTTPStatus\n", ""),
    Edit(
        "endpoint_module.py.jinja",
        "as above",
        "from ...types import Response, UNSET\n",
        "from ...types import PARSE_ERRORS, Response, UNSET\n",
    ),
    Edit(
        "property_templates/enum_property.py.jinja",
        "a plain text may stand where an enum is meant",
        '{% set transformed = source + ".value" %}',
        '{% set transformed = property.class_info.name + "(" + source + ").value" %}',
    ),
)


def _leaves_original_alone(member: str) -> Edit:
    return Edit(
        "client.py.jinja",
        f"with_{member} gives a new client and leaves the old one alone",
        f"""        if self._client is not None:
            self._client.{member}.update({member})
        if self._async_client is not None:
            self._async_client.{member}.update({member})
""",
        "",
    )


CLIENT_EDITS: Final = (
    Edit(
        "client.py.jinja",
        "a finite timeout unless one is given",
        "_timeout: httpx.Timeout | None = field(default=None,",
        f"_timeout: httpx.Timeout | None = field(factory=lambda: httpx.Timeout({DEFAULT_TIMEOUT}),",
    ),
    Edit(
        "client.py.jinja",
        "headers may hold a key, and repr ends up in logs",
        "_headers: dict[str, str] = field(factory=dict,",
        "_headers: dict[str, str] = field(factory=dict, repr=False,",
    ),
    Edit(
        "client.py.jinja",
        "as above",
        "_cookies: dict[str, str] = field(factory=dict,",
        "_cookies: dict[str, str] = field(factory=dict, repr=False,",
    ),
    Edit(
        "client.py.jinja",
        "as above",
        "_httpx_args: dict[str, Any] = field(factory=dict,",
        "_httpx_args: dict[str, Any] = field(factory=dict, repr=False,",
    ),
    Edit(
        "client.py.jinja",
        "the token is a secret",
        '"token": namespace(type="str", default="",',
        '"token": namespace(type="str", default="field(repr=False)",',
    ),
    Edit(
        "client.py.jinja",
        "the caller's own dictionary of headers is not written to",
        'self._headers[self.auth_header_name] = f\\"{self.prefix} {self.token}\\" if self.prefix else self.token',
        "self._headers = {**self._headers, self.auth_header_name: "
        'f\\"{self.prefix} {self.token}\\" if self.prefix else self.token}',
    ),
    *(_leaves_original_alone(member) for member in ("headers", "cookies")),
    Edit(
        "client.py.jinja",
        "with_timeout gives a new client and leaves the old one alone",
        """        if self._client is not None:
            self._client.timeout = timeout
        if self._async_client is not None:
            self._async_client.timeout = timeout
""",
        "",
    ),
)


def edits(document: Json) -> tuple[Edit, ...]:
    """Every edit, for this document: how a key is sent by default comes from its security schemes."""
    header = key_header(document)
    if header is None:
        return (*EDITS, *CLIENT_EDITS)
    return (
        *EDITS,
        *CLIENT_EDITS,
        Edit("client.py.jinja", "the key goes as the document says", """default='"Bearer"\'""", """default='""'"""),
        Edit("client.py.jinja", "as above", """default='"Authorization"\'""", f"""default='"{header}"'"""),
    )


def key_header(document: Json) -> str | None:
    """The header that carries the key where the document's own default is an API key in a header."""
    schemes = document.get("components", {}).get("securitySchemes", {})
    named = [name for requirement in document.get("security") or [] for name in requirement]
    for name in [*named, *schemes]:
        scheme = schemes.get(name, {})
        if scheme.get("type") == "apiKey" and scheme.get("in") == "header":
            return str(scheme["name"])
    return None


def write(document: Json, directory: Path) -> None:
    """Write the edited and the replaced templates into a directory the generator looks into first."""
    installed = Path(str(files("openapi_python_client").joinpath("templates")))
    for edit in edits(document):
        target = directory / edit.template
        target.parent.mkdir(parents=True, exist_ok=True)
        source = target if target.exists() else installed / edit.template
        target.write_text(applied(edit, source.read_text(encoding="utf-8")), encoding="utf-8")
    for replacement in sorted(REPLACEMENTS.iterdir()):
        (directory / replacement.name).write_text(replacement.read_text(encoding="utf-8"), encoding="utf-8")


def applied(edit: Edit, text: str) -> str:
    """The template with the edit made."""
    found = text.count(edit.anchor)
    if found != 1:
        raise GenerationError(
            f"the installed {edit.template} holds the anchor of an edit {found} times instead of once:\n"
            f"  {edit.anchor.strip()}\n"
            f"The edit is there because: {edit.why}. See docs/regenerating.md, 'Upgrading the generator'"
        )
    return text.replace(edit.anchor, edit.replacement)
