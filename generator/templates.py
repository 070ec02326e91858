"""Edit the generator's installed templates where its output is unsound. No template is copied into this project.

An edit names a piece of the installed template (its anchor), which must occur exactly once. If a new version of the
generator moved it, generation stops and names it. Four short templates are replaced completely (`templates/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from generator import GenerationError
from generator.document import Json

REPLACEMENTS: Final = Path(__file__).parent / "templates"
# Seconds. Without it the generated client would pass `None` to httpx, which means no timeout.
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
        # A copy or pickle refers to UNSET by name, because UNSET is compared by identity.
        return "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Unset = Unset()

E = TypeVar("E", bound=Enum)


def present(value: Any) -> Any:
    """Return UNSET for None: an optional member that is null counts as absent."""
    return UNSET if value is None else value


def unknown_member(enum: type[E], plain: Any, value: object) -> E | None:
    """Return a new member for an unknown value. For a value of another type return None, so that Enum raises."""
    if not isinstance(value, plain) or isinstance(value, bool):
        return None
    member: E = plain.__new__(enum, value)
    member._name_ = str(value)
    member._value_ = value
    return member


def is_known_member(member: Enum) -> bool:
    """Return whether the document this client was generated from has this value."""
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

_PROPERTY_DESCRIPTION: Final = """        {% set source = (model.data.properties or {}).get(property.name) %}
        {% set words = (source.description if source else none) or property.description or "" %}
        {% set line %}{{ property.python_name }} ({{ property.get_type_string() | safe_for_docstring }}): \
{{ words | safe_for_docstring }}{% endset %}
        {{ line | wordwrap(112) | indent(12) }}"""

_OPTIONAL_SOURCE: Final = """{% set popped = 'd.pop("' + (property.name | in_double_quote_literal) + '", UNSET)' %}
        {% set nullable = "None" in (property.get_type_string() | as_unembedded_code).split(" | ") %}
        {% set property_source = popped if nullable else "present(" + popped + ")" %}"""


# Edits for every document.
EDITS: Final = (
    Edit(
        "types.py.jinja",
        "UNSET survives copy and pickle; helpers for null and for unknown enum values",
        "\n\nUNSET: Unset = Unset()\n",
        "\n" + _HELPERS,
    ),
    Edit(
        "types.py.jinja",
        "a response may have any status, also an unregistered one such as 520",
        "status_code: HTTPStatus",
        "status_code: int",
    ),
    Edit(
        "types.py.jinja",
        "a body that cannot be read is reported beside the status",
        "    parsed: T | None\n",
        """    parsed: T | None
    parse_error: Exception | None = None


# Exceptions that reading a response may raise if the response does not match the document.
PARSE_ERRORS = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
""",
    ),
    Edit("types.py.jinja", "the helpers use these names", "from http import HTTPStatus\n", "from enum import Enum\n"),
    Edit(
        "types.py.jinja",
        "the helpers use these names",
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
        "a member that refers to a schema shows its own description, not that of the schema",
        "        {{ property.to_docstring() | wordwrap(112) | indent(12) }}",
        _PROPERTY_DESCRIPTION,
    ),
    Edit(
        "endpoint_module.py.jinja",
        "a status is a number; a body that cannot be read is reported, not raised",
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
        "httpx warns about cookies per request, even if there are none",
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
        "a string is accepted for an enum",
        '{% set transformed = source + ".value" %}',
        '{% set transformed = property.class_info.name + "(" + source + ").value" %}',
    ),
)


def _leaves_original_alone(member: str) -> Edit:
    return Edit(
        "client.py.jinja",
        f"with_{member} returns a new client and does not change the old one",
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
        "the default timeout is finite",
        "_timeout: httpx.Timeout | None = field(default=None,",
        f"_timeout: httpx.Timeout | None = field(factory=lambda: httpx.Timeout({DEFAULT_TIMEOUT}),",
    ),
    Edit(
        "client.py.jinja",
        "headers may contain a key, and a repr may be logged",
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
        "the caller's own dictionary of headers is not changed",
        'self._headers[self.auth_header_name] = f\\"{self.prefix} {self.token}\\" if self.prefix else self.token',
        "self._headers = {**self._headers, self.auth_header_name: "
        'f\\"{self.prefix} {self.token}\\" if self.prefix else self.token}',
    ),
    *(_leaves_original_alone(member) for member in ("headers", "cookies")),
    Edit(
        "client.py.jinja",
        "with_timeout returns a new client and does not change the old one",
        """        if self._client is not None:
            self._client.timeout = timeout
        if self._async_client is not None:
            self._async_client.timeout = timeout
""",
        "",
    ),
)


def edits(document: Json) -> tuple[Edit, ...]:
    """Return every edit for this document. Its security schemes decide how the client sends a key by default."""
    header = key_header(document)
    if header is None:
        return (*EDITS, *CLIENT_EDITS)
    return (
        *EDITS,
        *CLIENT_EDITS,
        Edit("client.py.jinja", "the key is sent as the document says", """default='"Bearer"\'""", """default='""'"""),
        Edit("client.py.jinja", "as above", """default='"Authorization"\'""", f"""default='"{header}"'"""),
    )


def key_header(document: Json) -> str | None:
    """Return the header that carries the key, if the document's default security is an API key in a header."""
    schemes = document.get("components", {}).get("securitySchemes", {})
    named = [name for requirement in document.get("security") or [] for name in requirement]
    for name in [*named, *schemes]:
        scheme = schemes.get(name, {})
        if scheme.get("type") == "apiKey" and scheme.get("in") == "header":
            return str(scheme["name"])
    return None


def write(document: Json, directory: Path) -> None:
    """Write the edited and the replaced templates into the directory that the generator searches first."""
    installed = Path(str(files("openapi_python_client").joinpath("templates")))
    for edit in edits(document):
        target = directory / edit.template
        target.parent.mkdir(parents=True, exist_ok=True)
        source = target if target.exists() else installed / edit.template
        target.write_text(applied(edit, source.read_text(encoding="utf-8")), encoding="utf-8")
    for replacement in sorted(REPLACEMENTS.iterdir()):
        (directory / replacement.name).write_text(replacement.read_text(encoding="utf-8"), encoding="utf-8")


def applied(edit: Edit, text: str) -> str:
    """Return the template with the edit made.

    Raises:
        GenerationError: if the anchor does not occur exactly once.
    """
    found = text.count(edit.anchor)
    if found != 1:
        raise GenerationError(
            f"the installed {edit.template} contains the anchor of an edit {found} times instead of once:\n"
            f"  {edit.anchor.strip()}\n"
            f"purpose of the edit: {edit.why}; see docs/regenerating.md, 'Upgrading the generator'"
        )
    return text.replace(edit.anchor, edit.replacement)
