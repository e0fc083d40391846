"""Archives of files, with the SHA-256 of each: a tar in zstd, which `tar --zstd` reads too."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.codecs.compression import ZstdError, zstd_file

_ABOUT = "about.json"
_PIECE_BYTES = 1 << 20


class Damaged(ValueError):
    """An archive that is none, or not whole."""


class _Hashed(io.RawIOBase):
    """A file to read, and the SHA-256 of what has been read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece: bytes = self._file.read(size)
        self.sha256.update(piece)
        return piece


def write(target: Path, files: Iterable[tuple[str, Path]], about: dict[str, Any]) -> None:
    """Writes an archive, which is there when it is whole and on the disk; only its owner may read it.

    Args:
        target: Where; nothing is there yet.
        files: By the names that they are to have.
        about: What to say of it, at its end.

    Raises:
        FileExistsError: Something is there.
    """
    if target.exists():
        raise FileExistsError(17, "it is there already", str(target))
    partial = target.with_name(f"{target.name}.partial")
    try:
        with open(partial, "xb", opener=_for_its_owner) as raw:
            with zstd_file(raw, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
                sums = {name: _add(archive, name, path) for name, path in files}
                content = json.dumps(about | {"sha256": sums}, indent=2).encode()
                archive.addfile(_member(_ABOUT, len(content)), io.BytesIO(content))
            raw.flush()
            os.fsync(raw.fileno())
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _add(archive: tarfile.TarFile, name: str, path: Path) -> str:
    with path.open("rb") as file:
        hashed = _Hashed(file)
        archive.addfile(_member(name, path.stat().st_size), hashed)
    return hashed.sha256.hexdigest()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    return member


def read(source: Path, place: Callable[[str], Path | None]) -> dict[str, Any]:
    """Writes out the files of an archive, and returns what it says of itself, once all are seen to be whole.

    Args:
        source: The archive.
        place: Where to write the file of a name; None for one that has no business there.

    Raises:
        Damaged: It is no archive, or not as it was written.
    """
    about: dict[str, Any] | None = None
    sums: dict[str, str] = {}
    with (
        source.open("rb") as raw,
        _damage_is_said(source),
        zstd_file(raw, "rb") as packed,
        tarfile.open(fileobj=packed, mode="r|") as archive,
    ):
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                raise Damaged(f"{source} holds {member.name!r}, which no backup has")
            if member.name == _ABOUT:
                about = json.loads(content.read())
            else:
                sums[member.name] = _write_out(source, member.name, content, place)
    if about is None:
        raise Damaged(f"{source} is not whole: its end is missing")
    if about.get("sha256") != sums:
        recorded = about.get("sha256", {})
        wrong = sorted(name for name in {*recorded, *sums} if recorded.get(name) != sums.get(name))
        raise Damaged(f"{source} is damaged: {', '.join(wrong[:3])} is not what was written")
    return about


def _write_out(source: Path, name: str, content: Any, place: Callable[[str], Path | None]) -> str:
    path = place(name)
    if path is None:
        raise Damaged(f"{source} holds {name!r}, which no backup has")
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = _Hashed(content)
    with path.open("xb") as file:
        while piece := hashed.read(_PIECE_BYTES):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return hashed.sha256.hexdigest()


@contextmanager
def _damage_is_said(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, json.JSONDecodeError, ZstdError) as error:
        raise Damaged(f"{source} is no backup, or is damaged: {error}") from error
