"""The random numbers of the corruptions: known answers, independence of the batch, distributions."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from benchmarks.data.corruptions.draws import Draws, normal_table, stream

MANY = 100_000


def draws(indices: torch.Tensor, severity: int = 1, seed: int = 0) -> Draws:
    return Draws(seed, "fog", severity, indices)


def test_splitmix64_known_answers() -> None:
    # The first outputs of the published generator for the seed 1234567.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [int(x) % 2**64 for x in stream(1234567, torch.arange(4))] == known


def test_numbers_do_not_move_between_versions_of_the_code() -> None:
    # If this fails, all corrupted images become other ones: raise PROTOCOL_VERSION knowingly.
    numbers = draws(torch.tensor([0, 7, 2**62]))
    assert numbers.words(2).tolist() == [
        [-1914599908, -657077008],
        [124002868, 1702763321],
        [-26887219, -446315344],
    ]
    assert [round(x, 6) for x in numbers.normal().tolist()] == [-0.415702, -0.091061, -2.285186]


def test_an_images_numbers_are_its_own() -> None:
    indices = torch.tensor([5, 0, 99, 3])
    whole = draws(indices)
    parts = [draws(index.view(1)) for index in indices]
    for _ in range(2):
        for shape in ((), (3,), (2, 4)):
            assert torch.equal(whole.words(*shape), torch.cat([part.words(*shape) for part in parts]))
    again, other_seed, other_severity = draws(indices), draws(indices, seed=1), draws(indices, severity=2)
    first = again.words(64)
    assert all((x.words(64) == first).float().mean() < 0.01 for x in (other_seed, other_severity, again))


@pytest.mark.parametrize("across", ["within an image", "between images"])
def test_distributions(across: str) -> None:
    indices, shape = (torch.arange(2), (MANY,)) if across == "within an image" else (torch.arange(MANY), (2,))
    source = draws(indices)
    words, uniform, normal = source.words(*shape), source.uniform(*shape), source.normal(*shape)
    bits = torch.stack([(words >> bit) & 1 for bit in range(32)]).double().mean((1, 2))
    assert (bits - 0.5).abs().max() < 5 * 0.5 / (2 * MANY) ** 0.5
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    # Neighbours in the image, in the data set, and in bits: no correlation beyond chance.
    line = uniform.flatten().numpy()
    for lag in (1, 2, 3, 16, 32):
        assert abs(stats.pearsonr(line[:-lag], line[lag:]).statistic) < 5 / len(line) ** 0.5
    pairs = (words.flatten()[:-1] >> 28 & 15) * 16 + (words.flatten()[1:] & 15)
    assert stats.chisquare(torch.bincount(pairs, minlength=256).numpy()).pvalue > 1e-3
    whole = source.integers(*shape, low=-2, high=3)
    assert stats.chisquare(torch.bincount((whole + 2).flatten(), minlength=5).numpy()).pvalue > 1e-3


def test_the_normal_tables_stated_precision() -> None:
    offset, slope = normal_table(torch.device("cpu"))
    f = torch.cat((torch.arange(4096), torch.linspace(4096, 2**31 - 1, 1_000_000).long())).double() + 0.5
    piece = (f.view(torch.int64) >> 46) - 1022 * 64
    error = (offset[piece] + slope[piece] * f - torch.special.ndtri(f * 2**-32)).abs()
    assert float(error.max()) < 2.2e-5
