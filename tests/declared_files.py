"""What tests of published files share; the fixtures are in tests/benchmarks/data/conftest.py."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.data.files.declared import FileSet

Declare = Callable[..., FileSet]
ROOT = Path(__file__).resolve().parent.parent
CIFAR10 = Path(os.environ.get("WEIGHTAUG_CIFAR10", ROOT / ".." / "shared" / "data"))
"""The genuine CIFAR-10 in lossless form, with the script that makes the original files of it."""


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
