"""Published changed test images: read lazily as they lie on disk, checked, and used by the same evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine
from declared_files import Declare, md5
from PIL import Image

from benchmarks import registry
from benchmarks.data.corrupted import PublishedCorruptions, sets_of, types_of
from benchmarks.data.dataset import Images
from benchmarks.data.digits import Digits
from benchmarks.data.files.declared import file_set
from benchmarks.data.imagenet import imagenet_classes
from benchmarks.data.shifted import ShiftedSet, shifted_sets
from benchmarks.errors import UserError
from benchmarks.evaluation.metrics import per_accepted_example

TYPES = ("contrast", "gaussian_noise")


@pytest.fixture
def test_images() -> Images:
    labels = torch.tensor([2, 0, 1, 2, 0, 1])
    return Images(torch.zeros(6, 3, 4, 4, dtype=torch.uint8), labels)


def _arrays(root: Path, labels: torch.Tensor, channels: int, side: int) -> dict[str, bytes]:
    """Arrays laid out like CIFAR-10-C's; returns the files."""
    folder = root / "SET-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(labels.numpy().astype(np.uint8), 5))
    shape = (5 * len(labels), side, side, channels)
    for seed, kind in enumerate(TYPES):
        np.save(folder / f"{kind}.npy", np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    return {f"SET-C/{path.name}": path.read_bytes() for path in folder.iterdir()}


def _declare_arrays(declare: Declare, files: dict[str, bytes], published: bool = True) -> None:
    contents = {part: md5(content) if published else None for part, content in files.items()}
    item = {"file": "SET-C.tar", "url": "https://example.org/SET-C.tar", "contents": contents}
    declare("set_c", folder="SET-C", layout="arrays", downloads=[item])


def _read(root: Path, test: Images) -> PublishedCorruptions:
    return PublishedCorruptions(["set_c"], TYPES, root, test.labels, (3, 4, 4), root / "cache")


def test_arrays_are_read_by_type_and_severity(declare: Declare, tmp_path: Path, test_images: Images) -> None:
    _declare_arrays(declare, _arrays(tmp_path, test_images.labels, 3, 4))
    published = _read(tmp_path, test_images)
    assert list(published) == [(kind, severity) for kind in TYPES for severity in range(1, 6)]
    assert len(published) == 10
    whole = np.load(tmp_path / "SET-C/contrast.npy")
    for severity in (1, 4):
        images = published["contrast", severity]
        assert images.dtype == torch.uint8
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), whole[(severity - 1) * 6 : severity * 6])
    with pytest.raises(KeyError):
        published["contrast", 6]


def test_nothing_is_read_before_it_is_asked_for(
    declare: Declare, tmp_path: Path, test_images: Images
) -> None:
    _declare_arrays(declare, _arrays(tmp_path, test_images.labels, 3, 4))
    (tmp_path / "SET-C/gaussian_noise.npy").unlink()
    published = _read(tmp_path, test_images)
    assert published["contrast", 1].shape == (6, 3, 4, 4)
    with pytest.raises(UserError, match="gaussian_noise"):
        published["gaussian_noise", 1]


def test_what_is_damaged_is_found_before_the_training(
    declare: Declare, tmp_path: Path, test_images: Images
) -> None:
    _declare_arrays(declare, _arrays(tmp_path, test_images.labels, 3, 4))
    _read(tmp_path, test_images).check()
    path = tmp_path / "SET-C/gaussian_noise.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"gaussian_noise.npy differs from the published MD5"):
        _read(tmp_path, test_images).check()


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "changed": (lambda f: f.write_bytes(f.read_bytes()[:-1] + b"?"), "differs from the published MD5"),
    "cut": (lambda f: f.write_bytes(f.read_bytes()[:500]), "differs from the published MD5"),
}
OWN_DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (lambda f: f.write_bytes(f.read_bytes()[:500]), "contrast.npy can't be read"),
    "pickle": (lambda f: np.save(f, np.array([{}]), allow_pickle=True), "contrast.npy can't be read"),
    "floats": (lambda f: np.save(f, np.zeros((30, 4, 4, 3))), "holds float64 .*expected uint8"),
    "size": (lambda f: np.save(f, np.zeros((30, 5, 5, 3), np.uint8)), r"expected uint8 \[30, 4, 4, 3\]"),
    "count": (lambda f: np.save(f, np.zeros((25, 4, 4, 3), np.uint8)), r"expected uint8 \[30, 4, 4, 3\]"),
    "labels": (
        lambda f: np.save(f.with_name("labels.npy"), np.zeros(30, np.uint8)),
        "labels.npy holds other labels than the test images",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_arrays_that_are_not_the_published_ones(
    declare: Declare, tmp_path: Path, test_images: Images, case: str
) -> None:
    _declare_arrays(declare, _arrays(tmp_path, test_images.labels, 3, 4))
    damage, said = DAMAGES[case]
    damage(tmp_path / "SET-C/contrast.npy")
    with pytest.raises(UserError, match=said):
        _read(tmp_path, test_images)["contrast", 1]


@pytest.mark.parametrize("case", OWN_DAMAGES)
def test_arrays_without_a_published_checksum_are_checked_all_the_same(
    declare: Declare, tmp_path: Path, test_images: Images, case: str
) -> None:
    _declare_arrays(declare, _arrays(tmp_path, test_images.labels, 3, 4), published=False)
    damage, said = OWN_DAMAGES[case]
    damage(tmp_path / "SET-C/contrast.npy")
    with pytest.raises(UserError, match=said):
        _read(tmp_path, test_images)["contrast", 1]


def test_arrays_without_a_published_checksum_are_recorded_and_compared_later(
    declare: Declare, tmp_path: Path, test_images: Images
) -> None:
    _declare_arrays(declare, _arrays(tmp_path, test_images.labels, 3, 4), published=False)
    _read(tmp_path, test_images)["contrast", 1]
    path = tmp_path / "SET-C/contrast.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="has changed since it was first used"):
        _read(tmp_path, test_images)["contrast", 1]


def _folders(root: Path, names: list[str], per_class: int, side: int = 4) -> None:
    """Folders laid out like ImageNet-C's; the images of class c have the value 10 c + their number."""
    for kind in TYPES:
        for severity in range(1, 6):
            for label, name in enumerate(names):
                folder = root / "SET-C" / kind / str(severity) / name
                folder.mkdir(parents=True)
                for number in range(per_class):
                    value = 10 * label + number + 100 * (severity == 5)
                    Image.new("RGB", (side, side), (value, value, value)).save(folder / f"{number}.png")


def _declare_folders(declare: Declare) -> None:
    item = {
        "file": "SET-C.tar",
        "url": "https://example.org/a",
        "contents": {f"SET-C/{kind}": 30 for kind in TYPES},
    }
    declare("set_c", folder="SET-C", layout="severities", downloads=[item])


def test_large_folders_are_decoded_only_where_they_are_asked_for(
    declare: Declare, tmp_path: Path, test_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folders(tmp_path, ["n1", "n2", "n3"], 2)
    _declare_folders(declare)
    monkeypatch.setattr("benchmarks.data.corrupted.KEPT_BYTES", 0)
    (tmp_path / "SET-C/contrast/1/n1/1.png").write_bytes(b"damaged")
    published = _read(tmp_path, test_images)
    assert published.read("contrast", 1, torch.tensor([3, 0]))[:, 0, 0, 0].tolist() == [21, 20]
    assert not (tmp_path / "cache").exists()
    with pytest.raises(UserError, match=r"1 of 1 images can't be used: n1/1.png"):
        published.read("contrast", 1, torch.tensor([4]))


def test_folders_are_read_in_the_order_of_the_test_labels(
    declare: Declare, tmp_path: Path, test_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folders(tmp_path, ["n1", "n2", "n3"], 2)
    _declare_folders(declare)
    published = _read(tmp_path, test_images)
    assert published["contrast", 1][:, 0, 0, 0].tolist() == [20, 0, 10, 21, 1, 11]  # labels 2 0 1 2 0 1
    assert published["contrast", 5][:, 2, 3, 3].tolist() == [120, 100, 110, 121, 101, 111]
    monkeypatch.setattr("benchmarks.data.decode._pixels", None)  # decoded once, then kept
    assert _read(tmp_path, test_images)["contrast", 1].shape == (6, 3, 4, 4)


@pytest.mark.parametrize(
    ("names", "per_class", "side", "said"),
    [
        (["n1", "n2"], 3, 4, "6 images of 2 classes, not as many of each class as the 6 test images"),
        (["n1", "n2", "n3"], 1, 4, "3 images of 3 classes"),
        (["n1", "n2", "n3"], 2, 5, r"the images are \[3, 5, 5\], expected \[3, 4, 4\]"),
    ],
)
def test_folders_that_do_not_fit_the_test_images(
    declare: Declare,
    tmp_path: Path,
    test_images: Images,
    names: list[str],
    per_class: int,
    side: int,
    said: str,
) -> None:
    _folders(tmp_path, names, per_class, side)
    _declare_folders(declare)
    with pytest.raises(UserError, match=said):
        _read(tmp_path, test_images)["contrast", 1]


@pytest.mark.parametrize("central", [1.0, 0.875])
def test_stored_images_of_c_bar_are_cropped_again_as_the_authors_do(
    declare: Declare, tmp_path: Path, central: float
) -> None:
    labels = torch.tensor([1, 0])
    stored = {}
    for kind in TYPES:
        for severity in range(1, 6):
            for label in (0, 1):
                path = tmp_path / f"SET-C/{kind}/{severity}/n{label}/0.png"
                path.parent.mkdir(parents=True)
                waves = np.add.outer(np.arange(224), (label + 2) * np.arange(224))
                stored[label] = Image.fromarray((127 + 100 * np.sin(waves / 30)).astype(np.uint8)).convert(
                    "RGB"
                )
                stored[label].save(path)
    item = {"file": "SET-C.tar", "contents": {f"SET-C/{kind}": 10 for kind in TYPES}}
    declare("set_c", folder="SET-C", layout="severities", central=central, downloads=[item])
    published = PublishedCorruptions(["set_c"], TYPES, tmp_path, labels, (3, 224, 224), tmp_path / "cache")
    for image, label in zip(published["contrast", 2], (1, 0), strict=True):
        expected = stored[label]
        if central < 1:
            expected = expected.crop((14, 14, 210, 210)).resize((224, 224), Image.Resampling.BICUBIC)
        difference = image.int() - torch.from_numpy(np.array(expected)).permute(2, 0, 1).int()
        assert difference.abs().max() <= (central < 1)


def test_real_declarations_cover_the_corruptions_of_the_papers() -> None:
    nineteen = set(types_of("cifar10_c"))
    assert len(nineteen) == 19
    for name in ("cifar100_c", "tinyimagenet_c", "imagenet_c"):
        assert set(types_of(name)) == nineteen
    assert set(types_of("imagenet_c_bar")) == set(types_of("cifar10_c_bar"))
    assert len(types_of("cifar10_c_bar")) == 10
    assert {name: file_set(name).central for name in ("imagenet_c", "imagenet_c_bar", "cifar10_c_bar")} == {
        "imagenet_c": 1,
        "imagenet_c_bar": 224 / 256,
        "cifar10_c_bar": 1,
    }
    assert sets_of(["cifar10_c", "cifar10_c_bar"], ["fog", "sparkles"]) == ("cifar10_c", "cifar10_c_bar")
    assert sets_of(["cifar10_c", "cifar10_c_bar"], ["fog"]) == ("cifar10_c",)
    with pytest.raises(UserError, match="nobody published sparkles"):
        sets_of(["cifar100_c"], ["fog", "sparkles"])


QUICK = ("recipe.epochs=1", "wandb=disabled", "device=cpu", "threads=1", "data=data")


def test_the_same_evaluation_uses_published_images_and_the_card_says_so(
    weightaug: CommandLine, declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Digits, "published_sets", ("set_c",))
    (tmp_path / "data").mkdir()
    test = Digits().load(Path()).test
    files = _arrays(tmp_path / "data", test.labels, 1, 8)
    _declare_arrays(declare, files)
    types = {"contrast": [0.4, 0.3, 0.2, 0.1, 0.05], "gaussian_noise": [0.08, 0.12, 0.18, 0.26, 0.38]}
    table = "dataset.corruptions={" + ",".join(f"{k}:{v}" for k, v in types.items()).replace(" ", "") + "}"
    cards = {}
    for origin in ("generated", "published"):
        done = weightaug("run", table, f"dataset.corrupted={origin}", *QUICK)
        assert done.returncode == 0, done.stderr
        cards[origin] = json.loads(
            (tmp_path / done.stdout.splitlines()[-1].removeprefix("card: ")).read_text()
        )
        assert cards[origin]["corrupted_images"] == dict.fromkeys(TYPES, origin)
        said = f"set_c in {tmp_path / 'data'} not used: dataset.corrupted=generated makes the corrupted images itself"
        assert done.stderr.count(said) == (origin == "generated")
    assert cards["generated"]["id"] != cards["published"]["id"]
    clean, corrupted = ([c["metrics"]["plain"][k] for c in cards.values()] for k in ("clean", "corrupted"))
    assert clean[0] == clean[1]
    assert corrupted[0] != corrupted[1]
    assert min(corrupted[1]["contrast"]["error"]) > 70  # random pixels

    (tmp_path / "data/SET-C/contrast.npy").unlink()
    absent = weightaug("run", table, "dataset.corrupted=published", "seed=1", *QUICK)
    assert absent.returncode == 2
    assert absent.stderr.count("\n") == 1
    for part in ("lacks SET-C/contrast.npy", "weightaug data fetch set_c", "https://example.org/SET-C.tar"):
        assert part in absent.stderr


def test_types_that_nobody_published_are_an_error(weightaug: CommandLine) -> None:
    done = weightaug("run", "dataset.corrupted=published")
    assert done.returncode == 2
    assert "nobody published" in done.stderr


def _classes(folder: Path, names: tuple[str, ...], per_class: int = 1) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            (folder / name / f"{number}.jpg").touch()


def _errors(found: ShiftedSet, logits: torch.Tensor, chosen: list[int]) -> list[float]:
    return per_accepted_example(logits, found.accepted[chosen], found.outputs)[0].tolist()


@pytest.mark.parametrize(("name", "folder"), [("imagenet_a", "imagenet-a"), ("imagenet_r", "imagenet-r")])
def test_sets_of_200_classes_let_those_compete_alone(tmp_path: Path, name: str, folder: str) -> None:
    wnids = imagenet_classes(name[-1])
    _classes(tmp_path / folder, wnids, per_class=2)
    found = shifted_sets(name, tmp_path)[name]
    assert len(found.listing) == 400
    label = imagenet_classes().index(wnids[3])
    assert found.accepted[6].tolist() == [label]
    logits = torch.zeros(1, 1000)
    logits[0, label] = 1.0
    logits[0, next(i for i, wnid in enumerate(imagenet_classes()) if wnid not in wnids)] = (
        2.0  # does not compete
    )
    assert _errors(found, logits, [6]) == [0]
    assert _errors(found, logits, [8]) == [1]


def test_imagenet_d_accepts_several_labels(tmp_path: Path) -> None:
    for part in ("background", "material", "texture"):
        _classes(tmp_path / "ImageNet-D" / part, ("chair", "mug"))
    parts = shifted_sets("imagenet_d", tmp_path)
    assert list(parts) == ["imagenet_d.background", "imagenet_d.material", "imagenet_d.texture"]
    found = parts["imagenet_d.texture"]
    assert found.accepted.tolist() == [[423, 559, 765], [504, -1, -1]]
    logits = torch.eye(1000)[[765, 765]]
    assert _errors(found, logits, [0, 1]) == [0, 1]
    _classes(tmp_path / "ImageNet-D/texture", ("unicorn",))
    with pytest.raises(UserError, match="unicorn is not a class of imagenet_d"):
        shifted_sets("imagenet_d", tmp_path)


def test_imagenet_hard_is_listed_by_its_labels(tmp_path: Path) -> None:
    folder = tmp_path / "imagenet-hard"
    folder.mkdir()
    (folder / "1.jpg").touch()
    (folder / "labels.json").write_text(json.dumps({"1.jpg": [7, 8]}))
    assert shifted_sets("imagenet_hard", tmp_path)["imagenet_hard"].accepted.tolist() == [[7, 8]]
    for content, said in (
        ({"1.jpg": [7], "2.jpg": [1]}, "1 of 2 images that are not there: 2.jpg"),
        ({"1.jpg": [1000]}, "labels out of range"),
        ({"1.jpg": []}, "labels out of range"),
        ([1], "can't be read as"),
    ):
        (folder / "labels.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=said):
            shifted_sets("imagenet_hard", tmp_path)


def test_shifted_sets_that_are_not_there_or_are_no_such_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imagenet_a lacks imagenet-a"):
        shifted_sets("imagenet_a", tmp_path)
    with pytest.raises(UserError, match="cifar10_c"):
        shifted_sets("cifar10_c", tmp_path)
    wnids = imagenet_classes("a")
    _classes(tmp_path / "imagenet-a", wnids[1:])
    with pytest.raises(UserError, match=f"199 class folders, expected 200; {wnids[0]} missing"):
        shifted_sets("imagenet_a", tmp_path)


def test_every_published_set_has_a_layout_that_is_read() -> None:
    for name in registry.entries("files"):
        if name.startswith("imagenet_") or name.endswith(("_c", "_c_bar")):
            assert file_set(name).layout in ("arrays", "severities", "classes", "labelled")
