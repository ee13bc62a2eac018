"""RandAugment against torchvision's, operation by operation, and what is drawn."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import RandAugment as Reference
from torchvision.transforms.autoaugment import _apply_op
from valueless_device import DEVICE, nothing_crosses

from benchmarks.data.randaugment import FILLS, RandAugment, apply, choices

THEIRS = {
    **{"shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY"},
    **{"rotate": "Rotate", "brightness": "Brightness", "color": "Color", "contrast": "Contrast"},
    **{"sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize", "identity": "Identity"},
    **{"autocontrast": "AutoContrast", "equalize": "Equalize", "invert": "Invert"},
}


def images(channels: int, height: int, width: int) -> torch.Tensor:
    """Noise, a flat image, a dim one and smooth ones."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (5, channels, height, width), generator=draw, dtype=torch.uint8)
    noise[0], noise[1] = 7, noise[1] // 8 + 100
    smooth = torch.rand(2, channels, 4, 4, generator=draw) * 255
    noise[2:4] = torch.nn.functional.interpolate(smooth, (height, width), mode="bilinear").to(torch.uint8)
    return noise


@pytest.mark.parametrize("name", sorted(set(THEIRS) - {"identity"}))
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 14), (3, 2, 5)])
def test_operations_are_torchvisions_bit_for_bit(name: str, shape: tuple[int, int, int]) -> None:
    batch = images(*shape)
    known = {choice.name: choice for choice in choices("torchvision", 30, *shape[1:])}
    for level in (0, 1, 7, 10, 19, 30):
        drawn = {choice.name: choice for choice in choices("torchvision", level, *shape[1:])}
        magnitude = drawn[name].magnitude if name in drawn else 0.0
        signed = name in known and known[name].signed
        for signed_magnitude in (magnitude, -magnitude) if signed else (magnitude,):
            for fill in FILLS.values():
                found = apply(name, batch, torch.full((len(batch),), signed_magnitude), fill)
                expected = [
                    _apply_op(
                        image,
                        THEIRS[name],
                        signed_magnitude,
                        InterpolationMode.NEAREST,
                        [float(fill)] * shape[0],
                    )
                    for image in batch
                ]
                assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (9, 14)])
def test_magnitudes_are_torchvisions(size: tuple[int, int]) -> None:
    for level in range(31):
        theirs = Reference()._augmentation_space(31, size)
        ours = choices("torchvision", level, *size)
        assert [THEIRS[choice.name] for choice in ours] == list(theirs)
        for choice, (magnitudes, signed) in zip(ours, theirs.values(), strict=True):
            magnitude = float(magnitudes[level]) if magnitudes.ndim else 0.0
            if choice.name.startswith(
                "translate"
            ):  # torchvision cuts the fraction off when it moves the image
                magnitude = int(magnitude)
            assert (choice.signed, choice.magnitude) == (signed, magnitude)


def test_each_image_has_operations_of_its_own() -> None:
    """A batch gives what every image gives alone, in any order, and the draws are the generator's."""
    batch = images(3, 12, 12)
    for kind, magnitude in (("torchvision", 10), ("official", 10)):
        draw = [torch.Generator().manual_seed(3) for _ in range(2)]
        first, second = (RandAugment(kind, 2, magnitude, 40, generator) for generator in draw)
        chosen = torch.tensor([31, 4, 4, 17, 0])
        together = first(batch, chosen)
        alone = [second(batch[i : i + 1], chosen[i : i + 1]) for i in (4, 2, 0, 1, 3)]
        assert torch.equal(together[[4, 2, 0, 1, 3]], torch.cat(alone))
        assert torch.equal(batch, images(3, 12, 12))


@pytest.mark.parametrize("kind", ["torchvision", "official"])
def test_nothing_waits_for_the_device(kind: str) -> None:
    augment = RandAugment(kind, 2, 10, 200, torch.Generator().manual_seed(0))
    batch = images(3, 12, 12).repeat(40, 1, 1, 1).to(DEVICE)
    with nothing_crosses() as seen:
        found = augment(batch, torch.arange(200))
    assert found.shape == batch.shape and found.is_meta
    assert set(augment.drawn.unique().tolist()) == set(range(len(choices(kind, 10, 12, 12))))
    assert len(seen.sent) > 20


@pytest.mark.parametrize(("kind", "count"), [("torchvision", 14), ("official", 17)])
def test_operations_are_drawn_evenly_and_half_of_the_signed_negated(kind: str, count: int) -> None:
    drawn = RandAugment(kind, 2, 10, 20_000, torch.Generator().manual_seed(0))
    shares = drawn.drawn.flatten().bincount(minlength=count) / drawn.drawn.numel()
    assert len(shares) == count
    assert torch.allclose(shares, torch.full((count,), 1 / count), atol=0.004)
    assert abs(float(drawn.signs.float().mean())) < 0.02


def test_official_magnitudes_at_the_papers_setting() -> None:
    """The model garden's formulas at magnitude 10 on 224 x 224 pixels."""
    found = {choice.name: choice.magnitude for choice in choices("official", 10, 224, 224)}
    assert found.pop("identity") == found.pop("invert") == 0
    assert found.pop("rotate") == 30 and found.pop("cutout") == 40 and found.pop("solarize_add") == 110
    assert found.pop("posterize") == 4 and found.pop("solarize") == 256
    assert found.pop("translate_x") == found.pop("translate_y") == 100
    assert found.pop("shear_x") == found.pop("shear_y") == pytest.approx(0.3)
    for name in ("color", "contrast_to_count", "brightness", "sharpness"):
        assert 1 + found.pop(name) == pytest.approx(1.9)
    assert set(found) == {"autocontrast", "equalize"}


def test_operations_that_only_the_official_set_has() -> None:
    grey = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    places = torch.tensor([[0.5, 0.5], [0.0, 0.99]])  # pixels (4, 4) and (0, 7)
    cut = apply("cutout", grey, torch.tensor([2.0, 3.0]), 128, places)
    assert (cut[0] == 128).nonzero().amin(0).tolist() == [0, 2, 2]
    assert (cut[0] == 128).nonzero().amax(0).tolist() == [2, 5, 5]
    assert (cut[1, 0] == 128).nonzero().amax(0).tolist() == [2, 7]
    assert (cut[1, 0] == 128).nonzero().amin(0).tolist() == [0, 4]
    values = torch.tensor([0, 100, 127, 128, 255], dtype=torch.uint8).view(1, 1, 1, 5)
    assert apply("solarize_add", values, torch.tensor([110.0])).flatten().tolist() == [
        110,
        210,
        237,
        128,
        255,
    ]
    half = apply(
        "contrast_to_count", torch.full((1, 3, 32, 32), 100, dtype=torch.uint8), torch.tensor([-0.5])
    )
    assert half.unique().tolist() == [52]  # half of 100 and of 32 * 32 / 256
