"""The client's progress bar in a real notebook."""

import nbformat
from nbclient import NotebookClient

from tests.serving import Server

CELL = """
from service.client import Client
with Client({url!r}, trust_env=False) as client:
    print(client.fit([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]], 2).wait().n_components)
"""


def test_a_notebook_shows_one_bar_that_moves(server: Server) -> None:
    cell = nbformat.v4.new_code_cell(CELL.format(url=server.url))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(
        notebook, timeout=120, extra_arguments=["--InteractiveShell.history_file=:memory:"]
    ).execute()
    texts = [output["text"] for output in cell.outputs if output.output_type == "stream"]
    bars = [output["data"]["text/html"] for output in cell.outputs if output.output_type == "display_data"]
    assert texts == ["2\n"]
    assert len(bars) == 1  # drawn anew in its place, and nothing said of widgets that are missing
    assert bars[0].startswith('<progress value="1.000" max="1"')
    assert "succeeded" in bars[0]
