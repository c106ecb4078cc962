"""The engine's code hash: which code gave an answer.

The orchestrator stores it with every run, so that a replay with other code reports the difference instead of hiding
it. It depends on the contents and the relative names of the sources only: the same code gives the same hash in every
folder and on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def code_hash(sources: Iterable[Path]) -> str:
    """Returns the hex SHA-256 over ``sources``, in order of their names. A folder stands for every file in it.

    Names and contents go in with their length in front: moving a byte from one file to its neighbour changes the hash.
    """
    files = {path: name for source in sources for name, path in _files(source)}
    if not files:
        raise ValueError("an engine needs at least one source file for its code hash")
    digest = hashlib.sha256()
    for name, content in sorted((name, path.read_bytes()) for path, name in files.items()):
        for part in (name.encode("utf-8"), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def sources_of(*functions: Callable[..., object]) -> list[Path]:
    """Returns the files that define ``functions``. Raises ValueError when one has no source file."""
    return [_source_of(function) for function in functions]


def _source_of(function: Callable[..., object]) -> Path:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # An instance with __call__: its class has the source.
        file = inspect.getsourcefile(type(function))
    if file is None:
        raise ValueError(f"{function!r} has no source file: pass sources=[...] to serve()")
    return Path(file)


def _files(source: Path) -> Iterator[tuple[str, Path]]:
    source = source.resolve()
    if source.is_file():
        yield source.name, source
        return
    if not source.is_dir():
        raise ValueError(f"{source.name} is neither a file nor a folder")
    for path in source.rglob("*"):
        relative = path.relative_to(source.parent)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(source).parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            yield relative.as_posix(), path
