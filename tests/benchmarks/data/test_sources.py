"""The data sets: what is read of small files laid out like the published ones, and of the genuine CIFAR-10."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from declared_files import Declare, md5, tar
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from web_server import Web

from benchmarks import registry
from benchmarks.config import load
from benchmarks.data.cifar import CIFAR10, CIFAR100
from benchmarks.data.dataset import DataSet, Source
from benchmarks.data.digits import Digits
from benchmarks.data.fashion_mnist import FashionMNIST
from benchmarks.data.files.declared import file_set
from benchmarks.data.image_folder import list_classes
from benchmarks.data.imagenet import ImageNet, imagenet_classes
from benchmarks.data.statistics import channel_statistics
from benchmarks.data.svhn import SVHN
from benchmarks.data.tinyimagenet import TinyImageNet
from benchmarks.errors import UserError


def _item(name: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {
        "file": name,
        "url": f"https://example.org/{name}",
        "size": len(content),
        "md5": md5(content),
        **more,
    }


def _pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_declared_checksums_are_those_that_torchvision_publishes() -> None:
    for name, published in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        item = file_set(name).downloads[0]
        listed = [
            *published.train_list,
            *published.test_list,
            [published.meta["filename"], published.meta["md5"]],
        ]
        assert (item.file, item.url, item.md5) == (published.filename, published.url, published.tgz_md5)
        assert item.contents == {f"{published.base_folder}/{file}": value for file, value in listed}
    for name, listed in (
        ("fashion_mnist", datasets.FashionMNIST.resources),
        ("svhn", [datasets.SVHN.split_list[part][1:] for part in ("train", "test")]),
        ("imagenet", [datasets.imagenet.ARCHIVE_META[part] for part in ("train", "val")]),
    ):
        assert {Path(item.file).name: item.md5 for item in file_set(name).downloads} == dict(
            map(tuple, listed)
        )


def test_every_set_says_where_its_checksums_are_published() -> None:
    for name in registry.entries("files"):
        files = file_set(name)
        assert files.page.startswith("http")
        for item in files.downloads:
            assert item.published
            assert item.url or files.prepare
            assert item.checksum or not item.url  # nothing is fetched that can't be checked


def _cifar(declare: Declare, web: Web, name: str, key: str) -> dict[str, bytes]:
    """A small archive laid out like CIFAR's."""
    files = {"cifar10": ("data_batch_1", "test_batch"), "cifar100": ("train", "test")}[name]
    members = {
        f"small/{file}": pickle.dumps({"data": _pixels(seed, 20, 3072), key: [*range(10), *range(10)]})
        for seed, file in enumerate(files)
    }
    web.files["small.tar.gz"] = tar(members)
    contents = {part: md5(content) for part, content in members.items()}
    declare(name, downloads=[_item("small.tar.gz", web.files["small.tar.gz"], contents=contents)])
    return members


@pytest.mark.parametrize(
    ("source", "name", "key"), [(CIFAR10, "cifar10", "labels"), (CIFAR100, "cifar100", "fine_labels")]
)
def test_cifar_is_fetched_and_checked(
    declare: Declare, web: Web, tmp_path: Path, source: type[Source], name: str, key: str
) -> None:
    _cifar(declare, web, name, key)
    data = source().load(tmp_path, download=True)
    assert torch.equal(data.train.images, torch.from_numpy(_pixels(0, 20, 3, 32, 32)))
    assert torch.equal(data.test.images, torch.from_numpy(_pixels(1, 20, 3, 32, 32)))
    assert data.test.labels.tolist() == [*range(10), *range(10)]
    again = source().load(tmp_path)  # now without the server
    assert torch.equal(again.train.images, data.train.images)
    assert len(web.asked) == 1


def test_an_archive_that_a_person_put_there_is_unpacked_without_a_network(
    declare: Declare, web: Web, tmp_path: Path
) -> None:
    _cifar(declare, web, "cifar10", "labels")
    (tmp_path / "small.tar.gz").write_bytes(web.files.pop("small.tar.gz"))
    assert len(CIFAR10().load(tmp_path, download=True).train) == 20
    assert web.asked == []


def test_a_damaged_pickle_is_named_and_not_opened(declare: Declare, web: Web, tmp_path: Path) -> None:
    _cifar(declare, web, "cifar10", "labels")
    CIFAR10().load(tmp_path, download=True)
    touched = tmp_path / "touched"

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (touched,))

    (tmp_path / "small/test_batch").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(
        UserError, match=r"test_batch differs from the published MD5 .*weightaug data fetch cifar10"
    ):
        CIFAR10().load(tmp_path)
    assert not touched.exists()


def test_missing_cifar10_says_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        CIFAR10().load(tmp_path)
    expected = ("data_batch_1", str(tmp_path), "WEIGHTAUG_DATA", "download=true", "170,498,071 bytes")
    for part in (*expected, datasets.CIFAR10.tgz_md5, datasets.CIFAR10.url, "weightaug data fetch cifar10"):
        assert part in str(error.value)


def test_the_genuine_cifar10_has_the_papers_constants_and_a_fixed_validation_split(
    genuine_cifar10: Path,
) -> None:
    data = CIFAR10().load(genuine_cifar10)
    assert (data.train.images.shape, data.test.images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    mean, _ = channel_statistics(data.train.images)
    assert mean == pytest.approx(data.mean, abs=1e-4)
    tuning = data.for_tuning()
    assert tuning.train.labels.bincount().tolist() == [4500] * 10
    assert tuning.test.labels.bincount().tolist() == [500] * 10
    held = hashlib.sha256(tuning.test.images.numpy().tobytes()).hexdigest()[:16]
    assert held == "ed2b824cd252222b"
    before = {image.numpy().tobytes() for image in data.test.images}
    assert not any(image.numpy().tobytes() in before for image in tuning.test.images[:500])


def test_validation_split_is_a_partition_of_the_training_images() -> None:
    whole, tuning = Digits().load(Path()), Digits(split="validation").load(Path())
    assert len(tuning.train) + len(tuning.test) == len(whole.train)
    assert _multiset(tuning.train, tuning.test) == _multiset(whole.train)
    shares = tuning.test.labels.bincount() / whole.train.labels.bincount()
    assert shares.min() > 0.09
    assert shares.max() < 0.11
    again = Digits(split="validation").load(Path())
    assert torch.equal(again.test.images, tuning.test.images)


def _multiset(*parts: Any) -> list[tuple[bytes, int]]:
    pairs = [
        (i.numpy().tobytes(), int(y)) for part in parts for i, y in zip(part.images, part.labels, strict=True)
    ]
    return sorted(pairs)


def test_settings_of_every_source_leave_ids_alone_until_they_are_changed() -> None:
    base = load(["dataset=cifar10"])[0]
    assert load(["dataset=cifar10", "dataset.split=test", "dataset.corrupted=generated"])[0].id == base.id
    others = ["dataset.split=validation", "dataset.corrupted=published", "dataset.mean=[0.5,0.5,0.5]"]
    assert len({base.id, *(load(["dataset=cifar10", other])[0].id for other in others)}) == 4


def test_the_normalisation_can_be_that_of_another_paper() -> None:
    data = Digits(mean=[0.5], std=[0.25]).load(Path())
    assert (data.mean, data.std) == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "valid"}, "did you mean 'validation'"),
        ({"corrupted": "auto"}, "known: generated, published"),
        ({"corrupted": "published", "split": "validation"}, "need dataset.split=test"),
        ({"mean": [0.5, 0.5, 0.5]}, "1 numbers are needed"),
        ({"std": [0.0]}, "std above 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Digits(**settings)


def _idx(array: np.ndarray) -> bytes:
    return gzip.compress(
        bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
    )


def _fashion(declare: Declare, web: Web) -> None:
    for part, seed, count in (("train", 0, 30), ("t10k", 1, 20)):
        web.files[f"{part}-images-idx3-ubyte.gz"] = _idx(_pixels(seed, count, 28, 28))
        web.files[f"{part}-labels-idx1-ubyte.gz"] = _idx(np.arange(count, dtype=np.uint8) % 10)
    items = [_item(f"FashionMNIST/raw/{name}", content) for name, content in web.files.items()]
    declare("fashion_mnist", downloads=items)


def test_fashion_mnist(declare: Declare, web: Web, tmp_path: Path) -> None:
    _fashion(declare, web)
    data = FashionMNIST().load(tmp_path, download=True)
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(_pixels(0, 30, 28, 28)))
    assert data.test.labels.tolist() == [*range(10), *range(10)]
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx([float(pixels.mean())], abs=1e-12)
    assert data.std == pytest.approx([float(pixels.std(correction=0))], abs=1e-12)


def test_a_file_of_another_format_is_named(declare: Declare, web: Web, tmp_path: Path) -> None:
    web.files |= {f"{p}-idx-ubyte.gz": b"no gzip" for p in ("train-images", "train-labels", "t10k-images")}
    declare("fashion_mnist", downloads=[_item(name, content) for name, content in web.files.items()])
    with pytest.raises(UserError, match="is not an array in the MNIST format"):
        FashionMNIST().load(tmp_path, download=True)


def test_svhn_calls_the_digit_0_by_the_label_0(declare: Declare, web: Web, tmp_path: Path) -> None:
    for seed, part in enumerate(("train", "test")):
        packed = io.BytesIO()
        labels = np.array([[10], [1], [9], [10]], dtype=np.uint8)
        savemat(packed, {"X": _pixels(seed, 32, 32, 3, 4), "y": labels})
        web.files[f"{part}_32x32.mat"] = packed.getvalue()
    declare("svhn", downloads=[_item(f"svhn/{name}", content) for name, content in web.files.items()])
    data = SVHN().load(tmp_path, download=True)
    assert data.train.labels.tolist() == [0, 1, 9, 0]
    assert torch.equal(data.test.images[2, 1], torch.from_numpy(_pixels(1, 32, 32, 3, 4)[:, :, 1, 2]))


def _jpeg(seed: int, size: int = 64, mode: str = "RGB") -> bytes:
    packed = io.BytesIO()
    Image.fromarray(_pixels(seed, size, size, 3)).convert(mode).save(packed, "JPEG")
    return packed.getvalue()


def _tiny(declare: Declare, web: Web, monkeypatch: pytest.MonkeyPatch, size: int = 64) -> dict[str, int]:
    """A small archive laid out like TinyImageNet's, with three classes; returns the label of each validation image."""
    monkeypatch.setattr(TinyImageNet, "num_classes", 3)
    monkeypatch.setattr("benchmarks.data.tinyimagenet.PER_CLASS", {"train": 2, "val": 2})
    wnids, packed = ["n03", "n01", "n02"], io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(6):
            wnid = wnids[number % 3]
            mode = "L" if number == 4 else "RGB"  # as in the true one, some are grey
            image = f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{number}.JPEG"
            archive.writestr(image, _jpeg(number, size, mode))
            archive.writestr(f"tiny-imagenet-200/val/images/val_{number}.JPEG", _jpeg(10 + number, size))
        for wnid in wnids:
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt", "0 0 1 1")
        rows = [f"val_{number}.JPEG\t{wnids[number % 3]}\t0\t0\t1\t1\n" for number in range(6)]
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "".join(rows))
    web.files["tiny.zip"] = packed.getvalue()
    contents = {"tiny-imagenet-200/train": 6, "tiny-imagenet-200/val": 6}
    declare("tinyimagenet", downloads=[_item("tiny.zip", web.files["tiny.zip"], contents=contents)])
    return {f"val_{number}.JPEG": sorted(wnids).index(wnids[number % 3]) for number in range(6)}


def test_tinyimagenet(declare: Declare, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = _tiny(declare, web, monkeypatch)
    source = TinyImageNet(cache=tmp_path / "cache")
    data = source.load(tmp_path, download=True)
    assert data.train.images.shape == (6, 3, 64, 64)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [labels[f"val_{number}.JPEG"] for number in range(6)]
    folder = tmp_path / "tiny-imagenet-200"
    with Image.open(folder / "val/images/val_5.JPEG") as image:
        assert np.array_equal(data.test.images[5].permute(1, 2, 0).numpy(), np.asarray(image))
    assert data.mean == pytest.approx([0.48031, 0.44814, 0.39763], abs=1e-4)
    monkeypatch.setattr("benchmarks.data.decode._pixels", None)  # decoded once, then kept
    assert torch.equal(source.load(tmp_path).train.images, data.train.images)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda f: (f / "train/n01/images/n01_1.JPEG").unlink(),
            r"5 images of 3 classes, expected 2 of each of 3",
        ),
        (
            lambda f: (f / "train/n01/images/n01_1.JPEG").write_bytes(_jpeg(0)[:300]),
            "1 of 6 images can't be used: n01/",
        ),
        (
            lambda f: (f / "train/n01/images/n01_1.JPEG").write_bytes(_jpeg(0, 32)),
            "32x32 pixels among 64x64|64x64",
        ),
        (lambda f: shutil.rmtree(f / "train/n01/images"), "no images in the class folder n01"),
        (lambda f: (f / "val/val_annotations.txt").unlink(), "val_annotations.txt can't be read"),
        (lambda f: (f / "val/val_annotations.txt").write_text("val_0.JPEG\tn9\n"), "has no training images"),
    ],
    ids=["lost image", "cut image", "small image", "empty class", "lost list", "wrong list"],
)
def test_damaged_tinyimagenet_is_named(
    declare: Declare, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, said: str
) -> None:
    _tiny(declare, web, monkeypatch)
    source = TinyImageNet(cache=tmp_path / "cache")
    source.load(tmp_path, download=True)
    damage(tmp_path / "tiny-imagenet-200")
    with pytest.raises(UserError, match=said):
        source.load(tmp_path)


def test_imagenet_is_listed_by_sorted_class(tmp_path: Path) -> None:
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert list(classes) == sorted(classes)
    assert {len(imagenet_classes(subset)) for subset in "ar"} == {200}
    for wnid in classes:
        (tmp_path / "imagenet/val" / wnid).mkdir(parents=True)
        (tmp_path / "imagenet/val" / wnid / f"{wnid}.JPEG").touch()
    listing = ImageNet().listing(tmp_path, "val")
    assert listing.labels.tolist() == list(range(1000))
    assert listing.files[7] == f"{classes[7]}/{classes[7]}.JPEG"
    shutil.rmtree(tmp_path / "imagenet/val" / classes[7])
    with pytest.raises(UserError, match=f"999 class folders, expected 1000; {classes[7]} missing"):
        ImageNet().listing(tmp_path, "val")


def test_class_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        list_classes(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no class folders"):
        list_classes(tmp_path)


def test_all_sources_read_small_sets_as_uint8(declare: Declare, web: Web, tmp_path: Path) -> None:
    _fashion(declare, web)
    for data in (Digits().load(tmp_path), FashionMNIST().load(tmp_path, download=True)):
        assert isinstance(data, DataSet)
        for part in (data.train, data.test):
            assert part.images.dtype == torch.uint8
            assert part.labels.dtype == torch.int64
