"""Streams of images on disk: the cache, what is read, resuming, and training from a stream as from memory."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.cell import Recipe
from benchmarks.config import load
from benchmarks.data import image_cache, loaders, streaming
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet, Images
from benchmarks.data.image_cache import ImageCache, Preparation
from benchmarks.data.image_folder import list_classes
from benchmarks.data.imagenet import ImageNet
from benchmarks.data.streaming import ImageStream, stream
from benchmarks.errors import UserError
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.evaluation.official import official_errors
from benchmarks.training.trainer import Trainer

SIZE = 16
PREPARED = Preparation(20)


def save(path: Path, seed: int, size: tuple[int, int] = (24, 30), mode: str = "RGB", **how: Any) -> None:
    """A smooth random image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).convert(mode).save(path, **how)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "SHARD", 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten JPEGs of various shapes, grey and CMYK among them."""
    root = tmp_path_factory.mktemp("images")
    for label in range(3):
        for number in range(10):
            shape = [(24, 30), (30, 24), (20, 20), (50, 33), (12, 15)][number % 5]
            mode = {3: "L", 4: "CMYK"}.get(number, "RGB")
            save(root / f"class{label}" / f"{number:02}.jpg", 10 * label + number, shape, mode, quality=95)
    return root


def streamed(folder: Path, cache: Path, loaders: int = 0) -> ImageStream:
    return stream(list_classes(folder), cache, SIZE, PREPARED, share=0.875, loaders=loaders)


def data(images: ImageStream | Images) -> DataSet:
    return DataSet(images, images, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2))


def test_the_cache_holds_what_pillow_decodes(folder: Path, tmp_path: Path) -> None:
    listing = list_classes(folder)
    cache = ImageCache(listing, PREPARED, tmp_path, 0)
    assert len(cache) == 30 and len(list(tmp_path.rglob("*.images"))) == 4
    for index, file in enumerate(listing.files):
        image = Image.open(folder / file).convert("RGB")
        if min(image.size) > 20:
            image = transforms.Resize(20, transforms.InterpolationMode.BICUBIC)(image)
        assert torch.equal(cache[index], transforms.PILToTensor()(image))
        assert cache.sizes[index].tolist() == [image.height, image.width]


def test_test_images_are_resized_and_cropped_as_by_torchvision(folder: Path, tmp_path: Path) -> None:
    listing = list_classes(folder)
    cache = ImageCache(listing, Preparation(20, crop=17), tmp_path, 0)
    reference = transforms.Compose(
        [
            transforms.Resize(20, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(17),
            transforms.PILToTensor(),
        ]
    )
    for index, file in enumerate(listing.files):
        assert torch.equal(cache[index], reference(Image.open(folder / file).convert("RGB")))


def test_squashed_images_lose_their_shape(folder: Path, tmp_path: Path) -> None:
    listing = list_classes(folder)
    cache = ImageCache(listing, Preparation(20, crop=16, squash=True), tmp_path, 0)
    resized = transforms.Compose(
        [
            transforms.Resize((20, 20), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(16),
            transforms.PILToTensor(),
        ]
    )
    for index, file in enumerate(listing.files):
        assert torch.equal(cache[index], resized(Image.open(folder / file).convert("RGB")))
    kept = ImageCache(listing, Preparation(20, crop=16), tmp_path, 0)
    assert kept.folder != cache.folder and not torch.equal(kept[0], cache[0])


def test_an_interrupted_build_goes_on_and_a_damaged_shard_is_made_again(folder: Path, tmp_path: Path) -> None:
    whole = ImageCache(list_classes(folder), PREPARED, tmp_path, 0)
    first, second = whole.shards[1], whole.shards[2]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in whole.shards}
    first.unlink()
    second.write_bytes(before[second][0][:-1])
    (whole.folder / "00001.partial-1").write_bytes(b"left by a killed process")
    ImageCache(list_classes(folder), PREPARED, tmp_path, 0)
    for path in whole.shards:
        assert path.read_bytes() == before[path][0]
        assert (path.stat().st_mtime_ns == before[path][1]) == (path not in (first, second))


def test_changed_files_and_another_size_get_a_cache_of_their_own(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "images" / "a" / "0.png"
    save(image, 0)

    def built(preparation: Preparation = PREPARED) -> ImageCache:
        return ImageCache(list_classes(tmp_path / "images"), preparation, tmp_path / "cache", 0)

    first = built()
    assert built().folder == first.folder
    assert built(Preparation(10)).folder != first.folder
    save(image, 1)
    assert built().folder != first.folder
    assert not torch.equal(built()[0], first[0])


def test_images_that_cannot_be_used_are_named_and_counted(tmp_path: Path) -> None:
    images, cache = tmp_path / "images", tmp_path / "cache"
    for number in range(20):
        save(images / "a" / f"{number:02}.png", number)
    (images / "a" / "03.png").write_bytes((images / "a" / "03.png").read_bytes()[:60])
    (images / "a" / "04.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(images / "a" / "05.png")
    with pytest.raises(UserError, match=r"3 of 20 images can't be used: a/03.png .*a/04.png .*a/05.png"):
        streamed(images, cache)
    kept = sorted(path.name for path in cache.rglob("*.images"))
    assert kept == ["00001.images", "00002.images"]  # those without a fault
    for number in (3, 4, 5):
        save(images / "a" / f"{number:02}.png", number)
    assert len(streamed(images, cache)) == 20


def test_a_full_disk_is_an_error_and_leaves_nothing_half_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = Path.replace, []

    def replaced(path: Path, target: Path) -> Path:
        written.append(target)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(UserError, match=r"the disk is full \([\d,]+ bytes free\); make room"):
        streamed(folder, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(image_cache, "SHARD", 8)
    assert len(list(tmp_path.rglob("*.images"))) == 2  # whole parts
    assert len(streamed(folder, tmp_path)) == 30


def test_too_little_room_is_found_out_after_the_first_shard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=20_000))
    with pytest.raises(UserError, match=r"22 more decoded images of .* need about 0 GB .* make room"):
        streamed(folder, tmp_path)
    assert [path.name for path in tmp_path.rglob("*.images")] == ["00000.images"]


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another cache folder"):
        streamed(folder, tmp_path / "file")


def test_a_stream_gives_the_same_for_any_number_of_loaders_and_from_any_batch_on(
    folder: Path, tmp_path: Path
) -> None:
    recipe = Recipe(batch_size=7, flip=True, min_crop_area=0.2, randaugment="official", mixup_alpha=1.0)
    here, elsewhere = (data(streamed(folder, tmp_path, loaders)) for loaders in (0, 2))
    whole = list(epoch_batches(here, recipe, 0, 1, classes=3))
    assert [x.shape for x, _ in whole] == [(7, 3, SIZE, SIZE)] * 4
    for start, other in ((0, elsewhere), (3, elsewhere), (2, here)):
        rest = list(epoch_batches(other, recipe, 0, 1, classes=3, start=start))
        for (x, y), (expected_x, expected_y) in zip(rest, whole[start:], strict=True):
            assert torch.equal(x, expected_x) and torch.equal(y, expected_y)


def test_what_was_seen_before_is_not_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = streamed(folder, tmp_path)
    read: list[int] = []
    whole = ImageCache.__getitem__
    monkeypatch.setattr(ImageCache, "__getitem__", lambda self, i: (read.append(i), whole(self, i))[1])
    recipe = Recipe(batch_size=7, min_crop_area=0.2)
    list(epoch_batches(data(images), recipe, 0, 1))
    everything, read[:] = [*read], []
    list(epoch_batches(data(images), recipe, 0, 1, start=3))
    assert len(everything) == 28 and read == everything[21:]


def test_batches_are_made_of_pieces_and_no_piece_lies_in_two(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.randperm(30)
    whole = [x for x, _ in streamed(folder, tmp_path).read(order, 12)]
    monkeypatch.setattr(loaders, "PIECE", 5)
    images = streamed(folder, tmp_path)
    pieces = loaders.Loaders.taken(images.cache, SIZE, 0, 12).pieces(order, torch.ones(30, 4).long() * 9, 12)
    assert [len(piece) for piece in pieces] == [5, 5, 2, 5, 5, 2, 5, 1]
    assert all(torch.equal(a, b) for a, (b, _) in zip(whole, images.read(order, 12), strict=True))


def test_loader_processes_stay_for_the_next_epoch_and_end_with_another_stream(
    folder: Path, tmp_path: Path
) -> None:
    before = {child.pid for child in psutil.Process().children()}  # of other tests

    def processes(images: ImageStream) -> set[int]:
        found: set[int] = set()
        for _ in images.read(torch.arange(30), 10):
            found |= {child.pid for child in psutil.Process().children()}
        return found - before

    images = streamed(folder, tmp_path, 2)
    other = stream(list_classes(folder), tmp_path, SIZE, Preparation(SIZE), loaders=2)
    first, second = processes(images), processes(images[torch.arange(30).flip(0)].to("cpu"))
    assert len(first) == 2 and second == first
    assert not processes(other) & first
    half = images.read(torch.arange(30), 10)
    next(half)
    inner = processes(images)  # while another reading is not at its end
    assert len(inner) == 4
    rest = [images[0] for images in half]
    assert len(rest) == 2 and torch.equal(rest[0], list(images.read(torch.arange(30), 10))[1][0])
    next(images.read(torch.arange(30), 10))  # given up in the midst: nothing of it comes later
    assert torch.equal(next(images.read(torch.arange(30), 10))[0], next(images.read(torch.arange(10), 10))[0])


def test_a_stream_of_small_images_is_the_set_in_memory(folder: Path, tmp_path: Path) -> None:
    """Images that are kept at their final size: the one interface, the same batches."""
    on_disk = stream(list_classes(folder), tmp_path, SIZE, Preparation(SIZE, crop=SIZE), loaders=0)
    ((pixels, labels),) = on_disk.read(torch.arange(30), 30)
    in_memory = Images(pixels, labels)
    for recipe in (
        Recipe(batch_size=8, crop_padding=2, flip=True, drop_last=False),
        Recipe(batch_size=8, min_crop_area=0.3, randaugment="torchvision"),
    ):
        batches = [list(epoch_batches(data(images), recipe, 0, 0)) for images in (on_disk, in_memory)]
        for (x, y), (other, labels) in zip(*batches, strict=True):
            assert torch.equal(y, labels)
            one_level = (
                0.021 if recipe.randaugment == "none" else 5.0
            )  # equalising strengthens a level's difference
            assert (x - other).abs().max() <= one_level
            assert (x - other).abs().mean() < 0.01
    chosen = torch.tensor([7, 3, 22])
    part = on_disk[chosen]
    assert len(part) == 3 and torch.equal(part.labels, in_memory[chosen].labels)
    assert torch.equal(next(part.read(torch.arange(3), 3))[0], pixels[chosen])


def test_without_a_crop_the_middle_is_seen(folder: Path, tmp_path: Path) -> None:
    images = streamed(folder, tmp_path)
    ((pixels, _),) = images.read(torch.tensor([2]), 1)  # 20 x 20, of which the middle 18 x 18
    whole = Image.fromarray(images.cache[2].permute(1, 2, 0).numpy())
    expected = whole.crop((1, 1, 19, 19)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    assert (pixels[0].int() - transforms.PILToTensor()(expected).int()).abs().max() <= 1


def test_throughput_is_told_and_starvation_warned_of(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = streamed(folder, tmp_path)
    capsys.readouterr()
    list(images.read(torch.arange(30), 10))
    assert capsys.readouterr().err == ""  # too short to say anything
    assert 0 < images.waited == images.to("cpu")[torch.arange(3)].waited  # of all readings together
    monkeypatch.setattr(streaming, "TELL_SECONDS", 0.0)
    list(images.read(torch.arange(30), 10))  # nobody uses the images: all of the time is waiting
    told = capsys.readouterr().err
    assert "warning" in told and "images/s" in told and "the device waits for images; 0 loader" in told
    monkeypatch.setattr(streaming, "STARVED", 1.1)
    list(images.read(torch.arange(30), 10))
    assert "warning" not in (told := capsys.readouterr().err) and "of the time waiting" in told


def imagenet(folder: Path, root: Path) -> Path:
    (root / "imagenet").mkdir()
    for part in ("train", "val"):
        (root / "imagenet" / part).symlink_to(folder)
    return root


@pytest.fixture
def cell_on_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A cell on three classes of small images in ImageNet's layout."""
    monkeypatch.setattr(ImageNet, "num_classes", 3)
    monkeypatch.setattr(ImageNet, "image_size", SIZE)
    monkeypatch.setattr("benchmarks.data.streaming.cores", lambda: 0)  # read in this process
    settings = ["dataset=imagenet", "recipe.batch_size=8", "recipe.epochs=2", "recipe.min_crop_area=0.2"]
    cell = load([*settings, "recipe.mixup_lambda=0.8", "method=was", "evaluation.batch_norm=reestimated"])[0]
    classes = ("class0", "class1", "class2")
    monkeypatch.setattr("benchmarks.data.imagenet.imagenet_classes", lambda: classes)
    source = cell.dataset.build({"cache": tmp_path / "cache"})
    return Trainer(cell, source, source.read(imagenet(folder, tmp_path)), "cpu")


def test_training_and_evaluating_from_disk(cell_on_disk: Trainer) -> None:
    run = cell_on_disk
    progress = run.run()
    assert progress.diverged_at is None
    assert 0 < progress.seconds["waiting"] == run.data.train.waited < progress.seconds["training"]
    source = run.cell.dataset.build()
    source.corruptions = {"contrast": [0.4, 0.3, 0.2, 0.1, 0.05]}
    ((pixels, labels),) = run.data.test.read(torch.arange(30), 30)
    in_memory = replace(run.data, test=Images(pixels, labels))
    results = []
    for test in (run.data, in_memory):
        run.method.predictions = 0  # the same shadow weights
        results.append(evaluate(run.cell, run.method, test, EvaluationImages.make(source, test)))
    assert results[0] == results[1]
    assert official_errors(run.cell, run.method, run.data, 1) == official_errors(
        run.cell, run.method, in_memory, 1
    )


def test_imagenet_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks imagenet/train, imagenet/val"):
        ImageNet().load(tmp_path)
    with pytest.raises(UserError, match="stored_side=-1"):
        ImageNet(stored_side=-1)
