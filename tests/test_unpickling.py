"""Nothing unpickles, which would run whatever bytes it is given; a rule of the linter says so."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).parents[1]
ROOMS = [
    "service/storage/new.py",
    "service/mixture/new.py",
    "service/worker/ranks.py",
    "alembic/versions/new.py",
    "benchmarks/new.py",
    "examples/new.py",
    "scripts/new.py",
]
UNPICKLING = [
    "import pickle\n\npickle.loads(b'')",
    "from pickle import loads\n\nloads(b'')",
    "import pickle as p\n\np.Unpickler",
    "import joblib\n\njoblib.load('x')",
    "from joblib import load\n\nload('x')",
    "import dill\n\ndill.loads(b'')",
    "import cloudpickle\n\ncloudpickle.loads(b'')",
    "import marshal\n\nmarshal.loads(b'')",
    "import shelve\n\nshelve.open('x')",
    "import torch\n\ntorch.load('x')",
    "import torch as t\n\nt.load('x', weights_only=False)",
    "from torch import load\n\nload('x')",
    "import torch\n\ntorch.save({}, 'x')",
    "import pandas as pd\n\npd.read_pickle('x')",
]
# These take or write pickled objects unless they are told not to, some of them by default.
ARRAY_FILES = {"load", "save", "savez", "savez_compressed", "read_array", "write_array"}


@pytest.mark.parametrize("room", ROOMS)
def test_the_linter_refuses_what_unpickles(room: str) -> None:
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename", room, "-"],
        input="\n\n".join(UNPICKLING) + "\n",
        capture_output=True,
        text=True,
        cwd=TREE,
        check=False,
    )
    assert linted.returncode == 1, linted.stderr
    flagged = {int(line.split(":")[1]) for line in linted.stdout.splitlines() if " TID251 " in line}
    line = 1
    for code in UNPICKLING:
        end = line + code.count("\n") + 2
        assert flagged & set(range(line, end)), code
        line = end


def pickling_arrays(code: str) -> Iterator[str]:
    """Yields the calls of numpy in a source that do not say that they take no pickled objects."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        called = ast.unparse(node.func)
        is_of_numpy = called.split(".")[0] in ("np", "numpy", "npy") and called.split(".")[-1] in ARRAY_FILES
        if (is_of_numpy or "allow_pickle" in given) and given.get("allow_pickle") != "False":
            yield f"line {node.lineno}: {called}"


def test_arrays_are_read_and_written_without_pickled_objects() -> None:
    wrong = [
        "np.load('x', allow_pickle=True)",
        "np.load('x')",
        "read('x', allow_pickle=yes)",
        "numpy.save(f, a)",
    ]
    assert [list(pickling_arrays(line)) for line in wrong] == [
        [f"line 1: {line.partition('(')[0]}"] for line in wrong
    ]
    sources = [path for room in ROOMS for path in (TREE / room.split("/")[0]).rglob("*.py")]
    assert len(sources) > 200
    found = {str(path): list(pickling_arrays(path.read_text())) for path in sources}
    assert {path: calls for path, calls in found.items() if calls} == {}
