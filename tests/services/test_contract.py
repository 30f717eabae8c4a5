"""The committed description of the API is the program's own, and says of every operation what a reader
needs."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs

SCRIPT = Path(__file__).parents[2] / "scripts" / "openapi.py"


def described() -> Any:
    return runpy.run_path(str(SCRIPT))


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described()["described"]()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_committed_description_is_the_programs_own() -> None:
    script = described()
    committed = script["FILE"].read_text()
    assert committed == script["rendered"](), (
        "The API has changed: run `.venv/bin/python scripts/openapi.py` and look at the difference."
    )


def test_every_operation_has_words_a_tag_and_a_name_of_its_own() -> None:
    names = []
    for where, operation in operations():
        assert operation.get("description"), f"{where} does not say what it does"
        assert operation.get("tags"), f"{where} belongs nowhere"
        names.append(operation["operationId"])
    assert len(names) == len(set(names))
    assert len(names) >= 70


def test_every_operation_says_how_it_refuses() -> None:
    for where, operation in operations():
        refusal = operation["responses"]["4XX"]["content"]
        assert list(refusal) == ["application/problem+json"], where


def test_every_body_answer_and_parameter_has_an_example_that_is_one() -> None:
    description = described()["described"]()
    checked = 0

    def check(schema: Any, example: Any, where: str) -> None:
        whole = {**schema, "components": description["components"]}
        faults = list(jsonschema_rs.validator_for(whole, validate_formats=True).iter_errors(example))
        assert faults == [], f"{where}: {faults[0].message}"

    for where, operation in operations():
        places = [("takes", operation.get("requestBody", {}))]
        places += [(f"answers {status}", answer) for status, answer in operation["responses"].items()]
        for does, place in places:
            for kind, content in place.get("content", {}).items():
                if "json" not in kind or not content.get("schema"):
                    continue
                examples = [each["value"] for each in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                assert examples, f"{where} {does} {kind} without an example"
                for example in examples:
                    check(content["schema"], example, f"{where} {does}")
                    checked += 1
        for parameter in operation.get("parameters", ()):
            check(parameter["schema"], parameter["example"], f"{where} {parameter['name']}")
    assert checked > 200


def test_every_list_pages() -> None:
    """A list has `items` and `next`, also where there is no next page yet: clients need not change one
    day."""
    schemas = described()["described"]()["components"]["schemas"]
    for name, schema in schemas.items():
        properties = schema.get("properties", {})
        if "items" in properties:
            assert "next" in properties, name
