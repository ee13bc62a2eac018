"""What all corruptions have in common, their tables, and their equality with the authors' code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import SELECTION
from torch import Tensor

from benchmarks.config import load
from benchmarks.data import corruptions
from benchmarks.data.corruptions import COLOURED, CORRUPTIONS, SEVERITIES, corrupt, read_table, weather
from benchmarks.data.corruptions.noise import alias_table, probabilities
from benchmarks.data.corruptions.table import without_missing
from benchmarks.errors import UserError

TABLES = dict.fromkeys(read_table("imagenet_cbar"), "imagenet_cbar")
TABLES |= dict.fromkeys(read_table("cifar_cbar"), "cifar_cbar")
TABLES |= dict.fromkeys(read_table("cifar"), "cifar")
PLAIN = {
    *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
    *("gaussian_blur", "saturate", "circular_motion_blur"),
}
"""Without random numbers."""
NOT_ORDERED = {"elastic_transform", "saturate"}
"""The first published severities are the affine map alone, and less saturation; they move the pixels furthest."""
GOLDEN = np.load(SELECTION / "corruptions.npz")


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Two photographs of 32 x 32 pixels, one of them mirrored and dimmed."""
    photograph = torch.from_numpy(GOLDEN["images"])
    return torch.cat((photograph, photograph.flip(3) // 2))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_function_of_image_index_and_seed_alone(
    name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_table(TABLES[name])
    four = images[[0, 1, 0, 1]]
    numbers = torch.tensor([3, 1, 4, 2**40])
    whole = corrupt(four, name, 3, table, numbers)
    assert (whole.dtype, whole.shape) == (torch.uint8, four.shape)
    assert torch.equal(whole[[2, 0]], corrupt(four[[2, 0]], name, 3, table, numbers[[2, 0]]))
    for place in range(4):  # each alone, not contiguous in memory
        alone = four[place : place + 1].permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
        assert torch.equal(
            whole[place : place + 1], corrupt(alone, name, 3, table, numbers[place : place + 1])
        )
    monkeypatch.setitem(corruptions.BLOCK_VALUES, "cpu", 3 * 32 * 32 * 3)
    assert torch.equal(whole, corrupt(four, name, 3, table, numbers))
    others = [corrupt(four, name, 3, table, numbers, seed=1), corrupt(four, name, 3, table, numbers + 7)]
    assert all(torch.equal(whole, other) == (name in PLAIN) for other in others)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_last_severity_moves_pixels_further_than_the_first(name: str, images: Tensor) -> None:
    many = images.repeat(8, 1, 1, 1)
    first, last = (
        float((corrupt(many, name, severity, TABLES[name]).float() - many.float()).abs().mean())
        for severity in (1, 5)
    )
    assert first > 0.1
    assert last > first or name in NOT_ORDERED


@pytest.mark.parametrize("table", sorted({*TABLES.values(), "tinyimagenet", "imagenet"}))
def test_images_of_any_size_and_grey_ones(table: str) -> None:
    parameters = without_missing(read_table(table))
    for name in parameters:
        for shape in ((1, 1), (2, 3), (21, 33)):
            x = torch.arange(3 * shape[0] * shape[1]).to(torch.uint8).view(1, 3, *shape)
            assert corrupt(x, name, 4, parameters).shape == x.shape
        grey = corrupt(x[:, :1], name, 4, parameters)
        assert grey.shape == (1, 1, 21, 33)
        if name in COLOURED:  # brightness of the result for three equal channels
            coloured = corrupt(x[:, :1].expand(-1, 3, -1, -1), name, 4, parameters).long()
            weights = torch.tensor([19595, 38470, 7471]).view(1, 3, 1, 1)
            assert torch.equal(
                grey, ((coloured * weights).sum(1, keepdim=True) + 32768 >> 16).to(torch.uint8)
            )


@pytest.mark.parametrize("name", sorted(set(GOLDEN.files) - {"images"}))
def test_equal_to_the_authors_code(name: str) -> None:
    image = torch.from_numpy(GOLDEN["images"])
    for severity in SEVERITIES:
        ours = corrupt(image, name, severity, TABLES[name], torch.tensor([1]))
        off = (ours[0].int() - torch.from_numpy(GOLDEN[name][severity - 1]).int()).abs()
        # The rounding of sums in another order; it meets a tie in the enlarged channels of the last one.
        share = 0.01 if name == "transverse_chromatic_abberation" else 0.003
        assert int(off.max()) <= 1
        assert float((off > 0).float().mean()) <= share


def test_the_golden_file_says_what_it_is() -> None:
    assert {"what", "source", "versions"} <= json.loads((SELECTION / "corruptions.json").read_text()).keys()


@pytest.mark.parametrize(
    ("kind", "parameter"), [("gaussian", 0.1), ("shot", 5), ("impulse", 0.27), ("speckle", 0.6)]
)
def test_alias_tables_have_the_probabilities(kind: str, parameter: float) -> None:
    wanted = probabilities(kind, parameter)
    assert np.allclose(wanted.sum(1), 1, atol=1e-12)
    packed = alias_table(kind, parameter, torch.device("cpu")).view(256, 256).long()
    taken = ((packed >> 8) + 2**23).double() / 2**24  # of the 1/256 of the words that choose this result
    taken = torch.where((packed & 255) == torch.arange(256), 1.0, taken)
    found = (taken / 256).scatter_add(1, packed & 255, (1 - taken) / 256)
    assert np.abs(found.numpy() - wanted).max() < 1e-7


def test_known_values() -> None:
    x = torch.full((1, 3, 4, 4), 102, dtype=torch.uint8)  # 0.4
    x[..., 0] = 204  # 0.8; mean 0.5
    for name, entry, row in (
        ("contrast", 0.5, [165, 114, 114, 114]),  # 0.65, 0.45: truncated, as NumPy does
        ("brightness", 0.1, [229, 127, 127, 127]),  # 0.9, 0.5
        ("pixelate", 0.5, [153, 153, 102, 102]),
        ("saturate", [0.3, 0], [204, 102, 102, 102]),  # grey has no saturation
    ):
        assert corrupt(x, name, 1, {name: [entry] * 5})[0, 0, 0].tolist() == row, name


def test_tables_are_complete_and_data() -> None:
    nineteen = list(read_table("cifar"))
    assert len(nineteen) == 19
    assert nineteen == list(read_table("tinyimagenet")) == list(read_table("imagenet"))
    assert len(read_table("cifar_cbar")) == len(read_table("imagenet_cbar")) == 10
    for dataset, table in (("digits", "digits"), ("cifar10", "cifar")):
        assert load([f"dataset={dataset}"])[0].dataset.arguments["corruptions"] == read_table(table)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"fgo": [1] * 5}, "unknown corruption 'fgo'; did you mean 'fog'"),
        ({"contrast": [1]}, "needs 5 parameters"),
        ({"contrast": 3}, "needs 5 parameters"),
        ({"fog": [[1, 2, 3]] * 5}, "takes amount and decay at each severity, not \\[1, 2, 3\\]"),
        ({"fog": [1] * 5}, "takes amount and decay"),
        ({"contrast": ["a"] * 5}, "takes factor"),
        ("cifr", "unknown corruption table 'cifr'; did you mean 'cifar'"),
    ],
)
def test_bad_tables(table: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_table(table) if isinstance(table, str) else corruptions.check_severities(table)  # type: ignore[arg-type]


def test_bad_arguments(images: Tensor) -> None:
    with pytest.raises(ValueError, match="give uint8"):
        corrupt(images.float(), "fog", 1, "cifar")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        corrupt(images[:, :2], "fog", 1, "cifar")
    with pytest.raises(ValueError, match="severity is 6"):
        corrupt(images, "fog", 6, "cifar")
    with pytest.raises(UserError, match="unknown corruption of the table 'fog'"):
        corrupt(images, "fog", 1, "digits")
    assert corrupt(images[:0], "fog", 1, "cifar").shape == (0, 3, 32, 32)


def test_without_the_photographs_frost_says_so_and_18_go_on(
    images: Tensor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weather, "PHOTOGRAPHS", ("frost9.png",))
    weather.frost_photographs.cache_clear()
    with pytest.raises(UserError, match="package imagecorruptions; install it"):
        corrupt(images, "frost", 1, "cifar")
    monkeypatch.undo()
    monkeypatch.setattr("benchmarks.data.corruptions.table.photograph_folder", lambda: None)
    corruptions.table._say_missing.cache_clear()
    left = without_missing(read_table("cifar"))
    assert len(left) == 18
    assert "frost" not in left
    assert capfd.readouterr().err.count("corruption frost lacks its photographs") == 1


def test_every_corruption_has_a_table_and_every_table_a_source() -> None:
    assert set(TABLES) == set(CORRUPTIONS)
    for path in Path("configs/corruption").glob("*.yaml"):
        head = path.read_text().splitlines()[0]
        assert head.startswith("# "), path
