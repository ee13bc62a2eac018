"""Data sets and batches."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from benchmarks.cell import Recipe
from benchmarks.data.batches import crop, epoch_batches, steps_per_epoch
from benchmarks.data.cifar10 import CIFAR10
from benchmarks.data.dataset import DataSet, Images
from benchmarks.data.digits import Digits
from benchmarks.errors import UserError


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return Digits().load(Path())


def test_digits_split_is_fixed_and_stratified(digits: DataSet) -> None:
    assert (len(digits.train), len(digits.test)) == (1257, 540)
    assert digits.train.images.shape == (1257, 1, 8, 8)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.max() == 255
    shares = digits.test.labels.bincount() / 540 - digits.train.labels.bincount() / 1257
    assert shares.abs().max() < 0.002
    text = digits.test.images.numpy().tobytes() + digits.test.labels.numpy().tobytes()
    assert hashlib.sha256(text).hexdigest()[:16] == "815558a276c0e1d6"


def test_batches_are_a_function_of_seed_and_epoch(digits: DataSet) -> None:
    recipe = Recipe(batch_size=64, crop_padding=1, flip=True)

    def epoch(seed: int, number: int) -> torch.Tensor:
        return torch.cat([x for x, _ in epoch_batches(digits, recipe, seed, number)])

    assert torch.equal(epoch(0, 3), epoch(0, 3))
    assert not torch.equal(epoch(0, 3), epoch(0, 4))
    assert not torch.equal(epoch(0, 3), epoch(1, 3))


@pytest.mark.parametrize(("drop_last", "expected"), [(True, 19), (False, 20)])
def test_last_batch_is_dropped_or_kept(digits: DataSet, drop_last: bool, expected: int) -> None:
    recipe = Recipe(batch_size=64, drop_last=drop_last)
    batches = list(epoch_batches(digits, recipe, 0, 0))
    assert len(batches) == steps_per_epoch(1257, recipe) == expected
    assert sum(len(y) for _, y in batches) == (1216 if drop_last else 1257)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    assert steps_per_epoch(10, Recipe(batch_size=64, drop_last=True)) == 1


def test_crop_moves_images_and_pads_with_zeros() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    middle = crop(image, 1, torch.tensor([[1, 1]]))
    corner = crop(image, 1, torch.tensor([[0, 2]]))
    assert torch.equal(middle, image)
    assert corner.view(3, 3).tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]


def test_labels_follow_their_images(digits: DataSet) -> None:
    recipe = Recipe(batch_size=100)
    known = {
        bytes(i.numpy().tobytes()): int(y)
        for i, y in zip(digits.train.images, digits.train.labels, strict=True)
    }
    mean, std = digits.mean[0], digits.std[0]
    for x, y in epoch_batches(digits, recipe, 0, 0):
        pixels = ((x * std + mean) * 255).round().to(torch.uint8)
        assert all(
            known[bytes(i.numpy().tobytes())] == int(label) for i, label in zip(pixels, y, strict=True)
        )


def test_missing_cifar10_says_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        CIFAR10().load(tmp_path)
    for part in ("data_batch_1", str(tmp_path), "WEIGHTAUG_DATA", "download=true", datasets.CIFAR10.tgz_md5):
        assert part in str(error.value)


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A web server with a small archive laid out like CIFAR-10's; torchvision is told of its checksums."""
    web = tmp_path / "web"
    folder = web / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for number, name in enumerate(["data_batch_1", "test_batch"]):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 2, 3, 4, 5]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    archive = web / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-py")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(web))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    replaced = {
        "url": f"http://127.0.0.1:{server.server_port}/{archive.name}",
        "tgz_md5": hashlib.md5(archive.read_bytes()).hexdigest(),
        "train_list": [["data_batch_1", sums["data_batch_1"]]],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]},
    }
    for name, value in replaced.items():
        monkeypatch.setattr(datasets.CIFAR10, name, value)
    yield tmp_path / "data"
    server.shutdown()


def test_cifar10_is_fetched_and_checked(small_cifar10: Path) -> None:
    data = CIFAR10().load(small_cifar10, download=True)
    assert data.train.images.shape == (6, 3, 32, 32)
    assert data.test.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(
        CIFAR10().load(small_cifar10).train.images, data.train.images
    )  # now without the server


def test_wrong_archive_is_refused(small_cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(UserError, match="can't be fetched"):
        CIFAR10().load(small_cifar10, download=True)


def test_damaged_file_is_named_and_not_opened(small_cifar10: Path) -> None:
    CIFAR10().load(small_cifar10, download=True)
    (small_cifar10 / "cifar-10-batches-py" / "test_batch").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"test_batch differs from the published MD5"):
        CIFAR10().load(small_cifar10)


def test_normalisation_is_per_channel() -> None:
    none = Images(torch.zeros(0), torch.zeros(0))
    data = DataSet(none, none, (0.5, 0.2), (0.5, 0.1))
    x = data.normalise(torch.tensor([255, 51], dtype=torch.uint8).view(1, 2, 1, 1))
    assert torch.allclose(x.flatten(), torch.tensor([1.0, 0.0]), atol=1e-6)
