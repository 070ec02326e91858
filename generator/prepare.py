"""Turns a published document into one the generator reads completely: the rules of `rules/`, in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Final

from generator import GenerationError
from generator.document import Json
from generator.rules import combine, layout, media, nulls, parameters, values, words

Rule = Callable[[Json, "Counter[str]"], None]

# First what later rules rely on: references that resolve, operations that are complete.
LAYOUT: Final[tuple[Rule, ...]] = (
    layout.check_references,
    layout.lower_version,
    layout.redirect_references,
    layout.inline_path_items,
    layout.shorten_reference_chains,
    layout.drop_definitions,
    layout.complete_operations,
)
# Structure before values: an enum or a map is only seen as one once null and compositions are out of its way.
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
    parameters.send_as_text,
    parameters.send_as_it_comes,
    values.drop_defaults,
    values.allow_unknown_members,
    values.keep_clashing_closed,
    values.free_maps,
)
# Words last: some rules above leave a remark for them.
WORDS: Final[tuple[Rule, ...]] = (parameters.describe_in_schema, words.shorten, words.describe_references)


def laid_out(document: Json) -> Json:
    """A copy in which every reference leads to a component and every operation is complete; nothing else is changed."""
    copy = deepcopy(document)
    copy.setdefault("components", {}).setdefault("schemas", {})
    for rule in LAYOUT:
        rule(copy, Counter())
    return copy


def prepared(document: Json) -> tuple[Json, Counter[str]]:
    """The document the generator gets, and how often each rule found something to do."""
    copy = deepcopy(document)
    copy.setdefault("components", {}).setdefault("schemas", {})
    counts: Counter[str] = Counter()
    try:
        for rule in (*LAYOUT, *STRUCTURE, *WORDS):
            rule(copy, counts)
    except RecursionError as error:
        raise GenerationError("a schema is composed of itself (allOf, anyOf or oneOf); no class can be that") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise GenerationError(
            f"the document is not shaped like OpenAPI 3 ({type(error).__name__}: {error}); "
            "`python -m openapi_spec_validator` on it says where"
        ) from error
    return copy, counts
