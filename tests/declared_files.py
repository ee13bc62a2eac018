"""What tests of published files share; the fixtures are in tests/benchmarks/data/conftest.py."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping

from benchmarks.data.files.declared import FileSet

Declare = Callable[..., FileSet]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def tar(members: Mapping[str, bytes]) -> bytes:
    """A compressed tar archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()
