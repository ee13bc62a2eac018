"""Makes ``reports/corruptions.md`` and its picture sheets: ``PYTHONPATH=.:tests python -m corruption_report``.

Needs the extra ``corruptions`` and genuine CIFAR-10 (see :mod:`genuine_images`); takes some minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from genuine_images import ABSENT, ROOT, cifar10_test_images
from golden_files import SELECTION
from PIL import Image, ImageDraw
from reference_corruptions import NOISES, PUBLISHED, as_shipped, reference, with_same_draws
from torch import Tensor

from benchmarks.data.corruptions import SEVERITIES, corrupt, read_table

SHEETS = {
    "corruptions": "cifar",
    "corruptions-cbar": "cifar_cbar",
    "corruptions-cbar-imagenet": "imagenet_cbar",
}
SHOWN = (3, 7, 4)  # CIFAR-10 test images: an aeroplane and two frogs
VERSIONS = ("numpy", "scipy", "scikit-image", "opencv-python", "pillow", "torch", "imagecorruptions")


def of_references(name: str, severity: int, images: Tensor, seed: int) -> Tensor:
    """The reference's results with NumPy's own random numbers."""
    np.random.seed(seed)
    entry = read_table("cifar")[name][severity - 1]
    pixels = [np.ascontiguousarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
    made = np.stack([reference(name, image, entry) for image in pixels])
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def distances(a: Tensor, b: Tensor, clean: Tensor) -> tuple[float, float, float, float]:
    """How far two corrupted sets are apart: mean and standard deviation in levels, spectrum, histograms.

    The spectrum is that of what the corruption added, by distance from the middle: mean |log10| of the ratio of
    powers. The histograms' distance is the largest difference of the channels' cumulative histograms.
    """
    x, y, c = (t.double() for t in (a, b, clean))
    powers = []
    for added in (x - c, y - c):
        power = torch.fft.fftshift(torch.fft.fft2(added).abs() ** 2, (2, 3)).mean((0, 1))
        rows, columns = torch.meshgrid(torch.arange(32) - 16, torch.arange(32) - 16, indexing="ij")
        ring = torch.sqrt(rows**2 + columns**2).round().long().clamp(max=16).flatten()
        total = torch.zeros(17, dtype=torch.float64).scatter_add(0, ring, power.flatten())
        powers.append(total / torch.bincount(ring, minlength=17) + 1e-9)
    spectrum = float(torch.log10(powers[0] / powers[1]).abs().mean())
    histogram = 0.0
    for channel in range(3):
        counts = [torch.bincount(t[:, channel].flatten().long(), minlength=256).cumsum(0) for t in (a, b)]
        histogram = max(histogram, float((counts[0] - counts[1]).abs().max()) / a[:, 0].numel())
    return abs(float(x.mean() - y.mean())), abs(float(x.std() - y.std())), spectrum, histogram


def same_numbers(images: Tensor) -> Iterator[str]:
    """Rows: for each type and severity the largest difference and the share of values that differ."""
    for name, entries in read_table("cifar").items():
        cells = []
        for severity in SEVERITIES:
            if name in NOISES:
                cells.append("by distribution")
                continue
            ours, theirs = with_same_draws(name, severity, images, entries[severity - 1])
            cells.append(difference(ours, theirs))
        yield f"| {name} | " + " | ".join(cells) + " |"


def difference(a: Tensor, b: Tensor) -> str:
    off = (a.int() - b.int()).abs()
    return f"{int(off.max())} ({float((off > 0).float().mean()):.1e})" if off.any() else "equal"


def own_numbers(images: Tensor) -> Iterator[str]:
    """Rows: for each type and severity the distances from the reference, and between two runs of the reference."""
    for name in read_table("cifar"):
        for severity in SEVERITIES:
            ours = corrupt(images, name, severity, "cifar")
            first, second = (of_references(name, severity, images, seed) for seed in (1, 2))
            found, floor = distances(ours, first, images), distances(second, first, images)
            cells = [f"{a:.3f} / {b:.3f}" for a, b in zip(found, floor, strict=True)]
            yield f"| {name} | {severity} | " + " | ".join(cells) + " |"


def package_itself(images: Tensor) -> Iterator[str]:
    """Rows: the types where the package departs from the published formula, and how far, with its own parameters."""
    for name in PUBLISHED:
        means = []
        for severity in SEVERITIES:
            np.random.seed(1)
            pixels = [np.ascontiguousarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
            shipped = torch.from_numpy(np.stack([as_shipped(name, severity, image) for image in pixels]))
            ours = corrupt(images, name, severity, "imagenet")
            means.append(distances(ours, shipped.permute(0, 3, 1, 2), images))
        cells = [f"{mean:.1f}, {std:.1f}, {histogram:.3f}" for mean, std, _, histogram in means]
        yield (
            f"| {name} | {PUBLISHED[name].__doc__ or 'the surplus goes from both ends'} | "
            + " | ".join(cells)
            + " |"
        )


def authors_code() -> Iterator[str]:
    """Rows: every type of the golden file, whose image the authors' own code has corrupted."""
    golden = np.load(SELECTION / "corruptions.npz")
    tables = {name: table for table in ("imagenet_cbar", "cifar_cbar", "cifar") for name in read_table(table)}
    for name in sorted(set(golden.files) - {"images"}):
        ours = [
            corrupt(torch.from_numpy(golden["images"]), name, severity, tables[name], torch.tensor([1]))[0]
            for severity in SEVERITIES
        ]
        cells = [difference(a, torch.from_numpy(b)) for a, b in zip(ours, golden[name], strict=True)]
        yield f"| {name} | {tables[name]} | " + " | ".join(cells) + " |"


def sheet(images: Tensor, table: str) -> Image.Image:
    """A row for each type, a column for the clean images and for each severity."""
    names = list(read_table(table))
    side, count, left, top, gap = 2 * 32, len(images), 190, 24, 8
    width = side * count + gap
    picture = Image.new("RGB", (left + 6 * width, top + (side + 4) * len(names)), "white")
    pen = ImageDraw.Draw(picture)
    for column, title in enumerate(("clean", *(f"severity {s}" for s in SEVERITIES))):
        pen.text((left + column * width, 6), title, fill="black")
    for row, name in enumerate(names):
        pen.text((4, top + row * (side + 4) + side // 2 - 6), name, fill="black")
        made = [images, *(corrupt(images, name, severity, table) for severity in SEVERITIES)]
        for column, batch in enumerate(made):
            line = batch.permute(2, 0, 3, 1).reshape(32, 32 * count, 3).numpy()
            enlarged = Image.fromarray(np.ascontiguousarray(line)).resize(
                (side * count, side), Image.Resampling.NEAREST
            )
            picture.paste(enlarged, (left + column * width, top + row * (side + 4)))
    return picture


def table_of(head: str, rows: Callable[[], Iterator[str]]) -> str:
    line = "|" + " --- |" * (head.count("|") - 1)
    return "\n".join((head, line, *rows()))


def report(images: Tensor, few: int) -> str:
    severities = " | ".join(f"severity {s}" for s in SEVERITIES)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    sections = [
        "# The corruptions against the reference code",
        f"Made by `PYTHONPATH=.:tests python -m corruption_report` on genuine CIFAR-10 test images, with {versions}. "
        "The reference is the package imagecorruptions with the parameters of CIFAR-10-C; where it departs from the "
        "code that made the published sets (hendrycks/robustness 8190fe3), the published formula: "
        f"{', '.join(PUBLISHED)}.",
        f"## Value by value, with the same random numbers ({few} images)",
        "Largest difference in levels of 0 to 255, and the share of values that differ at all. A difference of 1 is "
        "the rounding of a sum in another order that meets a whole level. elastic_transform: OpenCV up to 4 rounds "
        "the places of the affine map to 1/32 pixel, which is what the published sets were made with and what this "
        "suite does; OpenCV 5 does not. Under OpenCV 4.10 the two are equal (see the authors' code below).",
        table_of(f"| type | {severities} |", lambda: same_numbers(images[:few])),
        f"## In distribution, each with its own random numbers ({len(images)} images)",
        "Each cell: this suite from the reference / a second run of the reference from its first. Mean and standard "
        "deviation in levels of 0 to 255; spectrum: mean |log10| of the ratio of the powers of what was added, by "
        "frequency; histogram: largest difference of the channels' cumulative histograms. frost draws one of five "
        "photographs for each image: of so few images its mean is the chance of that draw.",
        table_of(
            "| type | severity | mean | standard deviation | spectrum | histogram |",
            lambda: own_numbers(images),
        ),
        "## The authors' own code (one photograph of 32 x 32 pixels)",
        "From `tests/goldens/corruptions.npz`: make_cifar_c.py and C-bar's corrupt.py, fed with this suite's random "
        "numbers, under OpenCV 4.10; largest difference and share as above. Motion blur and snow with the formula of "
        "ImageMagick in place of the program. The four noises can't be fed; see the distributions above.",
        table_of(f"| type | table | {severities} |", authors_code),
        "## Where the package departs from the published code",
        "As shipped, with its ImageNet parameters, on the same images: difference from this suite's table "
        "`imagenet` in mean, standard deviation and histogram.",
        table_of(f"| type | published | {severities} |", lambda: package_itself(images)),
        "## What can't be the same as the published files",
        "- CIFAR-10-C, CIFAR-100-C: made without a seed (and with NumPy's and ImageMagick's generators of 2018), so "
        "its random numbers can't be had again. Formulas, parameters, truncation to 8 bits are its own.\n"
        "- Tiny-ImageNet-C, ImageNet-C, ImageNet-C-bar: stored as JPEG of quality 85 after the corruption. Images "
        "generated here are not; `weightaug corrupt --format jpeg` stores them so.\n"
        "- glass_blur: the reference means to swap pixels and copies them (NumPy's views); so does this suite.\n"
        "- Normal numbers come from a table of the inverse distribution function (error below 2.2e-5), noises from "
        "tables of the 256 x 256 probabilities (exact to 2^-24).",
        "## All types, all severities",
        "\n\n".join(f"![{table}]({name}.png)" for name, table in SHEETS.items()),
    ]
    return "\n\n".join(sections) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="for the distributions")
    parser.add_argument("--few", type=int, default=20, help="for the comparison value by value")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    options = parser.parse_args()
    images = cifar10_test_images()
    if images is None:
        raise SystemExit(ABSENT)
    torch.set_num_threads(1)
    (options.out / "corruptions.md").write_text(report(images[: options.images], options.few))
    for name, table in SHEETS.items():
        sheet(images[list(SHOWN)], table).save(options.out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
