"""Fetches the libraries of the web pages into service/web/vendor, pinned by version and SHA-256.

    python scripts/vendor_web.py            fetches what is missing or differs
    python scripts/vendor_web.py --check    fetches nothing, fails when a file differs from its checksum

A new version: change the pins, run it, look at `/` and `/docs`, commit both.
"""

import argparse
import hashlib
import io
import os
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import httpx

VENDOR = Path(__file__).parents[1] / "service" / "web" / "vendor"
REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")


@dataclass(frozen=True)
class Library:
    """A package of the npm registry, and the files of it that the pages need.

    Attributes:
        package: its name there.
        version: exact.
        sha256: of the package's archive.
        folder: where its files go, under service/web/vendor.
        files: the SHA-256 of every file taken, by its path in the archive; its name alone is kept.
    """

    package: str
    version: str
    sha256: str
    folder: str
    files: dict[str, str]

    @property
    def url(self) -> str:
        """Where the archive is had."""
        return f"{REGISTRY}/{self.package}/-/{Path(self.package).name}-{self.version}.tgz"


LIBRARIES = (
    Library(
        "d3",
        "7.9.2",
        "f0c1d2c2479907a6e3265370d0fd715f7aef0f561cdd2b415df385ba7df9d1aa",
        "d3",
        {
            "LICENSE": "2a6d2d5f32ba0b755ddbc1c833f766e30cdbe6ebe9a6d4e3e24427721f0b63d3",
            "dist/d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
        },
    ),
    Library(
        "@observablehq/plot",
        "0.6.17",
        "4dcc9f7afd10caee8b2283c0075a5765610cfbbf6d7d93cdb153b3b5d3501afc",
        "plot",
        {
            "LICENSE": "4b295e011e0e046170041b5b46f1349393aeceb95797793a55bd21dbb543363a",
            "dist/plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
        },
    ),
    Library(
        "swagger-ui-dist",
        "5.35.0",
        "1b8e891893404ea4c3558b6a87e2a3e494e7eedba41168c2ece5800a391a6ea6",
        "swagger-ui",
        {
            "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
            "NOTICE": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
            "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
            "swagger-ui-bundle.js.LICENSE.txt": (
                "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb"
            ),
            "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
        },
    ),
)


def differing(library: Library) -> list[str]:
    """The files of a library that are missing or are not what was pinned, and files that nobody asked for."""
    folder = VENDOR / library.folder
    present = {path.name: path for path in folder.glob("*")} if folder.is_dir() else {}
    wanted = {Path(path).name: sha256 for path, sha256 in library.files.items()}
    wrong = [
        name
        for name, sha256 in wanted.items()
        if name not in present or hashlib.sha256(present[name].read_bytes()).hexdigest() != sha256
    ]
    return wrong + sorted(present.keys() - wanted.keys())


def fetch(library: Library) -> None:
    """Puts the files of a library in place.

    Raises:
        SystemExit: what the registry sent is not what was pinned; nothing is written.
    """
    answer = httpx.get(library.url, follow_redirects=True, timeout=60).raise_for_status()
    _require(library.url, answer.content, library.sha256)
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        for path, sha256 in library.files.items():
            member = archive.extractfile(f"package/{path}")
            if member is None:
                sys.exit(f"{library.url} has no file {path}")
            contents[Path(path).name] = content = member.read()
            _require(path, content, sha256)
    folder = VENDOR / library.folder
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def _require(name: str, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{name} has the SHA-256 {found}, not the pinned {sha256}; nothing was written")


def main() -> None:
    """Checks, and unless told not to, fetches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fetch nothing; fail when a file differs")
    check_only = parser.parse_args().check
    for library in LIBRARIES:
        wrong = differing(library)
        if wrong and check_only:
            sys.exit(f"{library.folder}: {', '.join(wrong)} differ from their checksums")
        if wrong:
            fetch(library)
        print(f"{library.package} {library.version}: {len(library.files)} files as pinned")


if __name__ == "__main__":
    main()
