"""Rules for descriptions, which become docstrings: one sentence, no title (it renames a class), no examples."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from generator.document import Json
from generator.rules.places import Place, become, everywhere, inline_operations

# Two lines of source at the width the generated code is wrapped to.
LONGEST_SENTENCE: Final = 160
_SENTENCE_END: Final = re.compile(r"(?<![ (.]\w)(?<!\b(?:cf|vs)\.)[.!?](?=\s+[^a-z\s])")
_REMARKS: Final = ("title", "example", "examples", "externalDocs", "xml", "$comment", "$schema", "$id", "$anchor")


def shorten(document: Json, counts: Counter[str]) -> None:
    """Keep the first sentence of every description, and add the server's default to it."""

    def rule(schema: Json, place: Place) -> None:
        for remark in _REMARKS:
            schema.pop(remark, None)
        description = first_sentence(schema.pop("description", None) or "")
        if "x-server-default" in schema:
            description = f"{description} Server default: {schema.pop('x-server-default')}.".strip()
        if description:
            schema["description"] = description
            counts["descriptions shortened to a sentence"] += 1

    everywhere(document, rule)
    for _, operation in inline_operations(document):
        for key in ("summary", "description"):
            operation[key] = first_sentence(operation.get(key) or "")
    document["info"].pop("description", None)


def first_sentence(text: str) -> str:
    """Return the first sentence of a string, truncated at a word if it is longer than `LONGEST_SENTENCE`."""
    paragraph = " ".join(re.split(r"\n\s*\n", text.strip())[0].split())
    end = _SENTENCE_END.search(paragraph)
    sentence = paragraph[: end.end()] if end else paragraph
    if len(sentence) <= LONGEST_SENTENCE:
        return sentence
    return sentence[: LONGEST_SENTENCE - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def describe_references(document: Json, counts: Counter[str]) -> None:
    """Rewrite a `$ref` with a description as an `allOf` of one reference, because the generator drops siblings."""

    def rule(schema: Json, place: Place) -> None:
        if "$ref" in schema and len(schema) > 1 and place.kind != "composed":
            rest = {key: value for key, value in schema.items() if key == "description"}
            reference = {"$ref": schema["$ref"]}
            become(schema, {**rest, "allOf": [reference]} if rest else reference)
            counts["references with a description"] += 1

    everywhere(document, rule)
