"""The page of the API, made of the API's own description.

`curl -s localhost:8000/openapi.json | python -m deployments.api.reference > docs/api.md` writes it anew; a test holds
the two together.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

Described = Mapping[str, Any]
WIDTH = 118

HEAD = """\
# API reference

Made of `/openapi.json` by `python -m deployments.api.reference`. What it means, and what is measured of it:
[serving.md](serving.md). All bodies are JSON but those of `/metrics`. With tokens every path but `/health` and `/ready`
needs `Authorization: Bearer TOKEN`. What may be left out may be `null`, too. Columns that a mapping has declared as
features are fields of a reservation, too, and stand in `/openapi.json`.
"""


def reference(described: Described) -> str:
    """Markdown of an OpenAPI description as `/openapi.json` gives it."""
    return "\n".join([HEAD, *_paths(described), *_predict(described), *_objects(described)]) + "\n"


def _paths(described: Described) -> Iterator[str]:
    yield "| path | what it does | answers |"
    yield "| --- | --- | --- |"
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            statuses = ", ".join(sorted(operation["responses"]))
            yield f"| `{method.upper()} {path}` | {operation['description'].splitlines()[0]} | {statuses} |"


def _predict(described: Described) -> Iterator[str]:
    content = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    schemas = described["components"]["schemas"]
    yield "\n## What `/predict` takes\n"
    yield from _table(schemas["Asking"])
    yield "\nA reservation:\n"
    yield from _table(schemas["Reservation"])
    yield "\nFor example:\n"
    yield from _code(content["examples"]["with reasons, kept nowhere"]["value"])
    answered = described["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    yield "\nand its answer:\n"
    yield from _code(answered["example"])


def _objects(described: Described) -> Iterator[str]:
    told = {
        "Predictions": "What `/predict` answers",
        "Prediction": "A prediction",
        "Reason": "A reason",
        "Ready": "What `/ready` answers",
        "ModelFacts": "What `/model` answers",
        "Told": "What a refusal says",
        "Detail": "One of its problems",
    }
    for name, title in told.items():
        schema = described["components"]["schemas"][name]
        yield f"\n## {title}\n\n{_filled(schema['description'])}\n"
        fields = (f"`{field}` ({_kind(kind)})" for field, kind in schema["properties"].items())
        yield _filled(", ".join(fields) + ".")


def _table(schema: Described) -> Iterator[str]:
    yield "| field | kind | left out |"
    yield "| --- | --- | --- |"
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        left_out = "refused" if name in required else field.get("description", "")
        yield f"| `{name}` | {_kind(field).removesuffix(' or null')} | {left_out} |"


def _kind(schema: Described) -> str:
    """A type with its limits, in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    kind = str(schema.get("format", schema["type"]))
    if kind == "array":
        kind = f"list of {_kind(schema['items'])}"
    low = next((schema[k] for k in ("minimum", "minLength", "minItems") if k in schema), None)
    high = next((schema[k] for k in ("maximum", "maxLength", "maxItems") if k in schema), None)
    unit = " characters" if kind == "string" else ""
    return kind if high is None else f"{kind}, {low or 0:,} to {high:,}{unit}"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def _code(told: Any) -> Iterator[str]:
    # Lines are broken between values, not within a text.
    kept = re.sub(r'"[^"]*"', lambda text: text[0].replace(" ", "\xa0"), json.dumps(told))
    yield f"```json\n{_filled(kept)}\n```".replace("\xa0", " ")


if __name__ == "__main__":
    sys.stdout.write(reference(json.load(sys.stdin)))
