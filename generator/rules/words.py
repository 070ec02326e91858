"""Docstrings are for reading: a sentence each, no titles (they rename classes) or examples, the default a remark."""

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
    """Keep the first sentence of every description, and say the server's default after it."""

    def rule(schema: Json, place: Place) -> None:
        for remark in _REMARKS:
            schema.pop(remark, None)
        words = first_sentence(schema.pop("description", None) or "")
        if "x-server-default" in schema:
            words = f"{words} Server default: {schema.pop('x-server-default')}.".strip()
        if words:
            schema["description"] = words
            counts["descriptions kept to a sentence"] += 1

    everywhere(document, rule)
    for _, operation in inline_operations(document):
        for key in ("summary", "description"):
            operation[key] = first_sentence(operation.get(key) or "")
    document["info"].pop("description", None)


def first_sentence(text: str) -> str:
    """The first sentence of a text, cut at a word where even that is long."""
    paragraph = " ".join(re.split(r"\n\s*\n", text.strip())[0].split())
    end = _SENTENCE_END.search(paragraph)
    sentence = paragraph[: end.end()] if end else paragraph
    if len(sentence) <= LONGEST_SENTENCE:
        return sentence
    return sentence[: LONGEST_SENTENCE - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def describe_references(document: Json, counts: Counter[str]) -> None:
    """What stands beside a `$ref` would be lost with it; `allOf` of one reference keeps both."""

    def rule(schema: Json, place: Place) -> None:
        if "$ref" in schema and len(schema) > 1 and place.kind != "composed":
            rest = {key: value for key, value in schema.items() if key == "description"}
            reference = {"$ref": schema["$ref"]}
            become(schema, {**rest, "allOf": [reference]} if rest else reference)
            counts["references with words of their own"] += 1

    everywhere(document, rule)
