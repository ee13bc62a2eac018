"""Random kernel transforms: frequencies, matrices, candidates that the authors left out, bad input."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from weightaug.kernel_draws import Affine, Crop, Custom, Flip, Shift, apply
from weightaug.kernel_transforms import (
    Discrete,
    Mixture,
    RandomAffine,
    RandomCrop,
    RandomShift,
    build_transform,
)

DISCRETE = [
    RandomShift(0.3),
    RandomShift(0.5),
    RandomCrop(0.8, 1.0),
    RandomCrop(0.6, 0.8),
    RandomCrop(0.2, 0.5),
]


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (2, 3)])
@pytest.mark.parametrize("transform", DISCRETE, ids=str)
def test_draws_have_the_stated_frequencies(transform: Discrete, size: tuple[int, int]) -> None:
    count = 60_000
    counts = Counter(transform.draw(size, torch.Generator().manual_seed(7), count))
    outcomes = transform.outcomes(size)
    assert sum(outcomes.values()) == pytest.approx(1, abs=1e-12)
    assert set(counts) <= set(outcomes)
    likely = {draw: p * count for draw, p in outcomes.items() if p * count >= 5}
    rest = count - sum(likely.values())
    observed, expected = [counts[draw] for draw in likely], list(likely.values())
    if rest >= 5:
        observed, expected = [*observed, count - sum(observed)], [*expected, rest]
    scaled = np.array(expected) * sum(observed) / sum(expected)
    assert len(likely) == 1 or chisquare(observed, scaled).pvalue > 1e-4


@pytest.mark.parametrize(
    ("taps", "low", "high"), [(3, 0.8, 1.0), (3, 0.6, 0.8), (5, 0.8, 1.0), (5, 0.2, 1.0), (7, 0.8, 1.0)]
)
def test_crop_probabilities_are_those_of_the_sampling_rule(taps: int, low: float, high: float) -> None:
    """The closed form against many runs of the rule that torchvision documents for RandomResizedCrop."""
    random = np.random.default_rng(3)
    count = 200_000
    height = np.zeros(count, int)
    width = np.zeros(count, int)
    for _ in range(10):
        area = taps * taps * random.uniform(low, high, count)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3), count))
        w, h = np.rint(np.sqrt(area * ratio)).astype(int), np.rint(np.sqrt(area / ratio)).astype(int)
        fits = (height == 0) & (w > 0) & (w <= taps) & (h > 0) & (h <= taps)
        height[fits], width[fits] = h[fits], w[fits]
    height[height == 0], width[width == 0] = taps, taps
    observed = Counter(zip(height.tolist(), width.tolist(), strict=True))
    expected: Counter[tuple[int, int]] = Counter()
    for draw, probability in RandomCrop(low, high).outcomes((taps, taps)).items():
        assert isinstance(draw, Crop)
        expected[draw.height, draw.width] += probability * count
    likely = [window for window, number in expected.items() if number >= 5]
    assert {window for window, number in observed.items() if number > 20} <= set(expected)
    scale = sum(observed[w] for w in likely) / sum(expected[w] for w in likely)
    statistic = chisquare([observed[w] for w in likely], [expected[w] * scale for w in likely])
    assert statistic.pvalue > 1e-4


def test_mixture_is_even() -> None:
    transform = build_transform("shift_or_crop")
    assert isinstance(transform, Mixture)
    draws = transform.draw((3, 3), torch.Generator().manual_seed(1), 20_000)
    shifts = sum(isinstance(draw, Shift) for draw in draws)
    assert chisquare([shifts, len(draws) - shifts]).pvalue > 1e-4
    shifted = Counter(draw for draw in draws if isinstance(draw, Shift))
    expected = RandomShift(0.3).outcomes((3, 3))
    assert chisquare([shifted[d] for d in expected], [p * shifts for p in expected.values()]).pvalue > 1e-4


def test_flips_are_fair() -> None:
    for name, flipped in (("hflip", Flip(horizontal=True)), ("vflip", Flip(vertical=True))):
        draws = build_transform(name).draw((3, 3), torch.Generator().manual_seed(2), 10_000)
        assert set(draws) == {Flip(), flipped}
        assert chisquare([draws.count(Flip()), draws.count(flipped)]).pvalue > 1e-4


@settings(max_examples=40, deadline=None)
@given(
    taps=st.sampled_from([3, 4, 5, 7]),
    angle=st.floats(-90, 90, allow_nan=False),
    shear=st.floats(-60, 60, allow_nan=False),
    scale=st.floats(0.5, 3.5, allow_nan=False),
)
def test_affine_is_torchvisions(taps: int, angle: float, shear: float, scale: float) -> None:
    """Where no source coordinate lies within float32 rounding of a tie, torchvision gives the same taps."""
    draw = Affine(angle, shear, scale)
    for nudge in (-1e-3, 1e-3):
        if Affine(angle + nudge, shear + nudge, scale + nudge).matrix((taps, taps)) != draw.matrix(
            (taps, taps)
        ):
            return
    weight = torch.randn(4, 3, taps, taps)
    # torchvision's angles turn clockwise.
    expected = TF.affine(weight, -angle, [0, 0], scale, [shear, 0.0], InterpolationMode.NEAREST)
    assert torch.equal(apply(weight, draw), expected)


def test_the_authors_candidates_are_torchvisions() -> None:
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(apply(weight, Flip(horizontal=True)), TF.hflip(weight))
    assert torch.equal(apply(weight, Flip(vertical=True)), TF.vflip(weight))
    assert torch.equal(apply(weight, Affine(angle=90.0)), torch.rot90(weight, 1, (2, 3)))
    assert torch.equal(apply(weight, Affine(angle=30.0)), TF.rotate(weight, 30.0))
    [shear] = build_transform("shear").draw((3, 3), torch.Generator())
    expected = TF.affine(weight, 0.0, [0, 0], 1.0, [135.0, 0.0], InterpolationMode.NEAREST)
    assert torch.equal(apply(weight, shear), expected)
    [scale] = build_transform("scale").draw((3, 3), torch.Generator())
    assert torch.equal(apply(weight, scale), weight[..., 1:2, 1:2].expand_as(weight))


def test_rotation_angles_are_uniform() -> None:
    transform = build_transform("rotate")
    assert isinstance(transform, RandomAffine)
    angles = [d.angle for d in transform.draw((3, 3), torch.Generator().manual_seed(5), 9_000)]
    assert chisquare(np.histogram(angles, bins=9, range=(-90, 90))[0]).pvalue > 1e-4


def test_one_draw_per_kernel() -> None:
    weight = torch.randn(5, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    draws = (Shift(1, 0), Crop(0, 0, 2, 3), Shift(0, 0), Flip(vertical=True), Affine(angle=90.0))
    together = apply(weight, draws)
    alone = torch.cat([apply(weight[i : i + 1], draw) for i, draw in enumerate(draws)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="4 draws for 5 kernels"):
        apply(weight, draws[:4])


def test_user_function() -> None:
    def roll(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return weight.roll(int(torch.randint(1, 3, (), generator=generator)), dims=-1)

    transform = build_transform(roll)
    weight = torch.randn(4, 2, 3, 3)
    for draw in transform.draw((3, 3), torch.Generator().manual_seed(0), 5):
        assert isinstance(draw, Custom)
        assert any(torch.equal(apply(weight, draw), weight.roll(n, dims=-1)) for n in (1, 2))
        assert torch.equal(apply(weight, draw), apply(weight, draw))
    mixed = (Shift(1, 0), *transform.draw((3, 3), torch.Generator(), 3))
    assert apply(weight, mixed).shape == weight.shape
    with pytest.raises(ValueError, match="must keep the shape"):
        apply(weight, Custom(lambda w, g: w[:1], 0))


def test_kernels_of_one_dimension_shift() -> None:
    weight = torch.randn(4, 2, 5)
    assert set(RandomShift(0.3).outcomes((1, 5))) == {Shift(dx, 0) for dx in (-1, 0, 1)}
    assert torch.equal(apply(weight, Shift(1, 0))[..., 1:], weight[..., :-1])
    with pytest.raises(ValueError, match="no window of a 1x5 kernel"):
        RandomCrop().outcomes((1, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_autocast_leaves_the_weights_precision(dtype: torch.dtype) -> None:
    weight = torch.randn(4, 2, 3, 3, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shifted = apply(weight, Shift(1, 1))
    assert shifted.dtype == dtype
    assert torch.equal(shifted[..., 1:, 1:], weight[..., :-1, :-1])


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match=r"unknown kernel transform 'turn'; use identity, shift"):
        build_transform("shift_or_turn")
    with pytest.raises(ValueError, match=r"translate is -0\.1"):
        build_transform("shift", translate=-0.1)
    with pytest.raises(ValueError, match=r"scale is 1.0\.\.0.5"):
        build_transform("crop", scale_min=1.0, scale_max=0.5)
