"""Crops, flips, RandAugment and MixUp: what they do to images, and that they are functions of seed and epoch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.cell import Recipe
from benchmarks.data.augmentation import mix, mixing_shares
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet, Images
from benchmarks.data.resampling import central_boxes, random_boxes, resized_crop
from benchmarks.errors import UserError

EVERYTHING = [
    Recipe(batch_size=16, flip=True, crop_padding=2),
    Recipe(batch_size=16, flip=True, min_crop_area=0.08),
    Recipe(
        batch_size=16,
        min_crop_area=0.05,
        crop_boxes="official",
        min_crop_covered=0.1,
        randaugment="official",
        mixup_lambda=0.8,
    ),
    Recipe(batch_size=16, crop_padding=1, randaugment="torchvision", mixup_alpha=0.2, drop_last=False),
]


def data(count: int = 50, size: int = 12) -> DataSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    images = Images(pixels, torch.arange(count) % 7)
    return DataSet(images, images, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


@pytest.mark.parametrize("recipe", EVERYTHING)
def test_batches_are_a_function_of_seed_and_epoch_from_any_batch_on(recipe: Recipe) -> None:
    whole = list(epoch_batches(data(), recipe, 1, 2, classes=7))
    for start in range(len(whole) + 1):
        rest = list(epoch_batches(data(), recipe, 1, 2, classes=7, start=start))
        assert len(rest) == len(whole) - start
        for (x, y), (expected_x, expected_y) in zip(rest, whole[start:], strict=True):
            assert torch.equal(x, expected_x) and torch.equal(y, expected_y)
    for other in ((1, 3), (2, 2)):
        assert not torch.equal(next(epoch_batches(data(), recipe, *other, classes=7))[0], whole[0][0])


def test_a_knob_leaves_what_the_others_draw_as_it_is() -> None:
    """Order and flips are those without RandAugment: with magnitude 0 of the blends nothing else is left to differ."""
    plain = Recipe(batch_size=16, flip=True, crop_padding=2)
    orders = [
        torch.cat([y for _, y in epoch_batches(data(), recipe, 0, 0, classes=7)])
        for recipe in (plain, replace(plain, randaugment="official"), replace(plain, min_crop_area=0.1))
    ]
    assert torch.equal(orders[0], orders[1]) and torch.equal(orders[0], orders[2])
    mixed = list(epoch_batches(data(), replace(plain, mixup_lambda=1.0), 0, 0, classes=7))
    for (x, y), (expected, labels) in zip(mixed, epoch_batches(data(), plain, 0, 0), strict=True):
        assert torch.equal(x, expected) and torch.equal(y, F.one_hot(labels, 7).float())


def test_augmentation_depends_on_the_image_not_on_the_order() -> None:
    """The same flips and operations for an image whatever the batch size."""
    found = []
    for size in (10, 25):
        recipe = Recipe(batch_size=size, flip=True, randaugment="torchvision")
        order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
        whole = torch.cat([x for x, _ in epoch_batches(data(), recipe, 0, 0)])
        found.append(whole[order.argsort()])
    assert torch.equal(*found)


@pytest.mark.parametrize("size", [8, 16])
def test_resized_crops_are_those_of_pillow_and_of_torch(size: int) -> None:
    pixels = data(20, size).train.images
    pixels[:10] = (
        F.interpolate(
            torch.rand(10, 3, 3, 3, generator=torch.Generator().manual_seed(1)) * 255,
            (size, size),
            mode="bicubic",
        )
        .clamp(0, 255)
        .byte()
    )
    boxes = random_boxes(torch.tensor([[size, size]]).expand(20, 2), 0.1, torch.Generator().manual_seed(0))
    found = resized_crop(pixels, boxes)
    for image, (top, left, height, width), result in zip(pixels, boxes.tolist(), found, strict=True):
        cut = image[:, top : top + height, left : left + width]
        theirs = F.interpolate(cut[None], (size, size), mode="bicubic", antialias=True)[0]
        assert (result.int() - theirs.int()).abs().max() <= 1
        pil = Image.fromarray(cut.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BICUBIC)
        pillow = torch.frombuffer(bytearray(pil.tobytes()), dtype=torch.uint8).view(size, size, 3)
        assert (result.int() - pillow.permute(2, 0, 1).int()).abs().max() <= 1
    whole = torch.tensor([[0, 0, size, size]]).expand(20, 4)
    assert torch.equal(resized_crop(pixels, whole), pixels)


def test_random_boxes_are_distributed_as_they_say() -> None:
    sizes = torch.tensor([[64, 64]]).expand(20_000, 2)
    top, left, height, width = random_boxes(sizes, 0.25, torch.Generator().manual_seed(0)).double().unbind(1)
    area = height * width / 64**2
    assert float(area.min()) > 0.24 and float(area.max()) <= 1
    # Boxes that stick out are drawn again, which takes more of the large ones; small ones always fit.
    small = area < 0.5
    assert abs(float((area[small] < 0.375).double().mean()) - 0.5) < 0.02
    ratio = (width / height).log()[small]
    assert float(ratio.abs().max()) < math.log(4 / 3) + 0.05
    assert abs(float(ratio.mean())) < 0.01
    assert abs(float(ratio.std()) - 2 * math.log(4 / 3) / math.sqrt(12)) < 0.01
    for corner, extent in ((top, height), (left, width)):
        assert float(corner.min()) == 0 and bool((corner + extent <= 64).all())
        free = 64 - extent
        assert abs(float((corner[free > 8] / free[free > 8]).mean()) - 0.5) < 0.01


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    area=st.floats(0.01, 1.0),
    seed=st.integers(0, 10_000),
)
def test_boxes_lie_inside_images_of_any_shape(height: int, width: int, area: float, seed: int) -> None:
    sizes = torch.tensor([[height, width]]).expand(30, 2)
    for boxes in (
        random_boxes(sizes, area, torch.Generator().manual_seed(seed)),
        random_boxes(sizes, area, torch.Generator().manual_seed(seed), "official", 0.1),
        central_boxes(sizes, area),
    ):
        assert bool((boxes[:, :2] >= 0).all()) and bool((boxes[:, 2:] >= 1).all())
        assert bool((boxes[:, :2] + boxes[:, 2:] <= sizes).all())


def test_official_boxes_are_distributed_as_tensorflows() -> None:
    """Width / height uniform on 3/4 to 4/3 and, for each, the height uniform from the least area to what fits."""
    side = 200
    sizes = torch.tensor([[side, side]]).expand(40_000, 2)
    draw = torch.Generator().manual_seed(0)
    top, _, height, width = random_boxes(sizes, 0.08, draw, "official").double().unbind(1)
    area = height * width / side**2
    assert float(area.min()) >= 0.08 and float(area.max()) <= 1
    ratio = width / height
    wide = (ratio - 3 / 4) / (4 / 3 - 3 / 4)
    assert abs(float(wide.mean()) - 0.5) < 0.01 and abs(float(wide.var()) - 1 / 12) < 0.003
    least, most = side * (0.08 / ratio).sqrt(), (side / ratio).clamp(max=side)
    share = (height - least) / (most - least)
    assert abs(float(share.mean()) - 0.5) < 0.01 and abs(float(share.var()) - 1 / 12) < 0.003
    free = side - height
    assert abs(float((top[free > 20] / (free[free > 20] - 1)).mean()) - 0.5) < 0.01
    covered = random_boxes(sizes, 0.08, torch.Generator().manual_seed(0), "official", 0.3)
    assert float((covered[:, 2] * covered[:, 3]).min()) >= 0.3 * side**2
    kept = area >= 0.3  # the first draw was enough for these
    assert torch.equal(covered[kept, 2:].double(), torch.stack([height, width], 1)[kept])


def test_no_box_fits_a_narrow_image_whole() -> None:
    boxes = random_boxes(torch.tensor([[100, 10], [10, 100]]), 1.0, torch.Generator().manual_seed(0))
    assert boxes.tolist() == [[43, 0, 13, 10], [0, 43, 10, 13]]  # 10 x 4/3, in the middle


def test_mixup_by_hand() -> None:
    x, y = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0, 1, 1])
    mixed, labels = mix(x, y, 0.8, 3)
    assert torch.allclose(mixed, torch.tensor([[0.8 + 1.0], [2.0], [4.0 + 0.2]]))
    assert torch.allclose(labels, torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.2, 0.8, 0.0]]))
    logits = torch.randn(3, 3)
    expected = 0.8 * F.cross_entropy(logits, y) + 0.2 * F.cross_entropy(logits, y.flip(0))
    assert torch.allclose(F.cross_entropy(logits, labels), expected)


def test_beta_shares_have_the_moments_of_beta() -> None:
    recipe = Recipe(mixup_alpha=0.4)
    drawn = mixing_shares(recipe, 20_000, seed=0, epoch=0)
    assert drawn is not None and drawn == mixing_shares(recipe, 20_000, seed=0, epoch=0)
    shares = torch.tensor(drawn)
    assert abs(float(shares.mean()) - 0.5) < 0.01
    assert abs(float(shares.var()) - 1 / (4 * (2 * 0.4 + 1))) < 0.005
    assert mixing_shares(recipe, 3, 0, 1) != mixing_shares(recipe, 3, 0, 0)
    assert mixing_shares(Recipe(mixup_lambda=0.8), 3, 0, 0) == [0.8] * 3
    assert mixing_shares(Recipe(), 3, 0, 0) is None


def test_mixup_needs_the_number_of_classes() -> None:
    with pytest.raises(ValueError, match="tell epoch_batches the number of classes"):
        next(epoch_batches(data(), Recipe(batch_size=16, mixup_lambda=0.8), 0, 0))


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    recipe = Recipe(batch_size=64, flip=True, min_crop_area=0.3, randaugment="official", mixup_alpha=1.0)
    ((x, y),) = epoch_batches(data(10), recipe, 0, 0, classes=7)
    assert x.shape == (10, 3, 12, 12) and y.shape == (10, 7)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"mixup_alpha": -0.2}, "mixup_alpha=-0.2: must be above 0"),
        ({"mixup_alpha": 0.0}, "mixup_alpha=0.0: must be above 0"),
        ({"mixup_lambda": 1.5}, "a share from 0 to 1"),
        ({"mixup_lambda": 0.8, "mixup_alpha": 0.2}, "both set"),
        ({"min_crop_area": 0.0}, "above 0 and up to 1"),
        ({"min_crop_area": 0.08, "crop_padding": 4}, "one crop is enough"),
        ({"min_crop_area": 0.08, "crop_boxes": "tensorflow"}, "known: official, torchvision"),
        ({"min_crop_area": 0.08, "min_crop_covered": 0.1}, "needs recipe.crop_boxes=official"),
        ({"min_crop_area": 0.1, "crop_boxes": "official", "min_crop_covered": 1.0}, "from 0 to below 1"),
        ({"randaugment": "torchvison"}, "did you mean 'torchvision'"),
        ({"randaugment": "official", "randaugment_magnitude": 11}, "from 0 to 10"),
        ({"randaugment": "torchvision", "randaugment_layers": 0}, "1 or more randaugment_layers"),
    ],
)
def test_bad_knobs(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**knobs).check()  # type: ignore[arg-type]


def test_ids_stay_without_the_knobs() -> None:
    from benchmarks.config import load

    plain = load([])[0]
    assert plain.identity()["recipe"] == {"batch_size": 64, "epochs": 5}
    for knob in ("min_crop_area=0.1", "randaugment=official", "mixup_lambda=0.8", "mixup_alpha=0.2"):
        assert load([f"recipe.{knob}"])[0].id != plain.id
