"""Examples in the OpenAPI document: what the service has answered, by the name of the schema."""

import json
from importlib import resources
from typing import Any

_FOLDER = resources.files("service.schemas") / "examples"
_PAGE = "Page_"


def add_examples(schemas: dict[str, Any]) -> None:
    """Gives the schemas of answers the examples that lie in files, and pages an item of theirs.

    `python scripts/record_examples.py` asks a service for them again.
    """
    for file in _FOLDER.iterdir():
        name = file.name.removesuffix(".json")
        if name in schemas:
            schemas[name]["examples"] = json.loads(file.read_text("utf-8"))
    for name, schema in schemas.items():
        if name.startswith(_PAGE):
            item = name.removeprefix(_PAGE).removesuffix("_")
            schema["examples"] = [{"items": schemas[item].get("examples", [])[-1:]}]
