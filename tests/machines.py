"""Commands in processes that meet as torchrun lets them, each in a folder of its own, as on several machines."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import socket
from collections.abc import Sequence
from pathlib import Path


def on_machines(folders: Sequence[Path], *commands: Sequence[str]) -> list[list[tuple[int, str, str]]]:
    """Exit code, stdout and stderr of each command, one after the other, in the process of each folder."""
    ports = [_free_port() for _ in commands]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_life, args=(rank, folder, len(folders), ports, commands))
        for rank, folder in enumerate(folders)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(150)
        assert process.exitcode == 0
    return [json.loads(folder.with_suffix(".json").read_text()) for folder in folders]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def _life(rank: int, folder: Path, count: int, ports: list[int], commands: Sequence[Sequence[str]]) -> None:
    from benchmarks.cli import main

    os.chdir(folder)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "localhost"}
    ends = []
    for port, command in zip(ports, commands, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(command)
            except SystemExit as end:
                code = int(end.code or 0)
        ends.append((code, out.getvalue(), err.getvalue()))
    folder.with_suffix(".json").write_text(json.dumps(ends))
