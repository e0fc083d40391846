"""Writes the OpenAPI document that the service answers with to `openapi.json`: `make openapi`."""

import json
import tempfile
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import Settings

OPENAPI = Path(__file__).parents[1] / "openapi.json"


def document() -> dict[str, Any]:
    """Returns the document."""
    with tempfile.TemporaryDirectory() as folder:
        # The environment's settings could name a database that is not there; the document needs none.
        settings = Settings(data_dir=Path(folder), database_url="", dataset_store_url="")
        return create_app(settings).openapi()


def main() -> None:
    """Writes the file."""
    OPENAPI.write_text(json.dumps(document(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
