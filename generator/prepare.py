"""Prepare a published document so that the generator reads all of it: the rules of `rules/`, in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Final

from generator import GenerationError
from generator.document import Json
from generator.rules import combine, descriptions, extensions, layout, media, nulls, parameters, values

Rule = Callable[[Json, "Counter[str]"], None]

# First, because later rules rely on it: references that resolve, operations that are complete.
LAYOUT: Final[tuple[Rule, ...]] = (
    layout.check_references,
    layout.lower_version,
    layout.redirect_references,
    layout.inline_path_items,
    layout.shorten_reference_chains,
    layout.drop_definitions,
    extensions.fold_extensions,
    extensions.merge_closed_parts,
    extensions.restore_operation_ids,
    layout.require_declared_key,
    layout.complete_operations,
)
# Structure before values: a rule recognises an enum or a map only after null and compositions are separated from it.
STRUCTURE: Final[tuple[Rule, ...]] = (
    media.name_media,
    nulls.replace_booleans,
    nulls.name_types,
    combine.drop_conditions,
    values.loosen_constants,
    nulls.separate_null,
    values.settle_enums,
    combine.flatten_compositions,
    combine.merge_alternatives,
    combine.settle_guesses,
    combine.name_alternatives,
    parameters.send_as_string,
    parameters.send_unchanged,
    values.drop_defaults,
    values.allow_unknown_members,
    values.keep_clashing_closed,
    values.free_maps,
)
# Descriptions last: some rules above leave a remark in an `x-` member, which becomes part of a description.
DESCRIPTIONS: Final[tuple[Rule, ...]] = (
    parameters.describe_in_schema,
    descriptions.shorten,
    descriptions.describe_references,
)


def normalized(document: Json) -> Json:
    """Return a copy in which every reference leads to a component and every operation is complete."""
    copy = deepcopy(document)
    copy.setdefault("components", {}).setdefault("schemas", {})
    for rule in LAYOUT:
        rule(copy, Counter())
    return copy


def prepared(document: Json) -> tuple[Json, Counter[str]]:
    """Return the document for the generator, and how often each rule changed something."""
    copy = deepcopy(document)
    counts: Counter[str] = Counter()
    with expecting_openapi():
        copy.setdefault("components", {}).setdefault("schemas", {})
        for rule in (*LAYOUT, *STRUCTURE, *DESCRIPTIONS):
            rule(copy, counts)
    return copy, counts


@contextmanager
def expecting_openapi() -> Iterator[None]:
    """Turn what goes wrong with a document of another shape into a `GenerationError`."""
    try:
        yield
    except RecursionError as error:
        raise GenerationError("a schema contains itself in allOf, anyOf or oneOf; no class can express that") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise GenerationError(
            f"the document does not have the shape of OpenAPI 3 ({type(error).__name__}: {error}); "
            "`python -m openapi_spec_validator` on it says where"
        ) from error
