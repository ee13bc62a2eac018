"""Aggregates of the raw measurements in a card: means over corruptions, and errors relative to a baseline's.

With E(c, s) a measurement under corruption type c at severity s (1 to 5), over the types C that are asked for:

    by type             e(c)   = 1/5 sum_s E(c, s)
    by severity         m(s)   = 1/|C| sum_c E(c, s)
    mean                m      = 1/(5 |C|) sum_c sum_s E(c, s)
    corruption error    CE(c)  = sum_s E(c, s) / sum_s E_baseline(c, s)        DAMP paper, equation 18
    mean of those       mCE    = 1/|C| sum_c CE(c)

CE is a ratio, not a percentage, and its baseline is the same model trained plainly (Hendrycks and Dietterich take
AlexNet, and percent). For the clean inputs it is the ratio of the clean errors; the averages in the DAMP paper's
figures 3, 5 and 6 count that column too. Means are unweighted because all corrupted sets have the same size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import Any

from benchmarks.errors import unknown_name

CLEAN = "clean"
STANDARD = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The 15 types of CIFAR-10-C, ImageNet-C and the like that are counted everywhere."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The 4 that those sets hold besides; the DAMP paper's figure 4 counts all 19."""
C_BAR = (
    *(
        "blue_noise_sample",
        "brownish_noise",
        "caustic_refraction",
        "checkerboard_cutout",
        "cocentric_sine_waves",
    ),
    *("inverse_sparkles", "perlin_noise", "plasma_noise", "single_frequency_greyscale", "sparkles"),
)
"""The 10 types of ImageNet-C-bar."""
GROUPS: dict[str, tuple[str, ...] | None] = {
    "corrupted": None,
    "corrupted15": STANDARD,
    "corrupted19": (*STANDARD, *EXTRA),
    "c_bar": C_BAR,
}
"""Names of type collections in metric paths; None: whatever was measured."""

Metrics = Mapping[str, Any]
"""What a card holds of one inference mode, see :mod:`benchmarks.results.card`."""


def at_severity(metrics: Metrics, severity: int, key: str, types: Collection[str]) -> float:
    """m(s) of one severity, 1 to 5, over ``types``, which were measured."""
    return fmean(metrics["corrupted"][c][key][severity - 1] for c in types)


def by_severity(
    metrics: Metrics, key: str = "error", types: Collection[str] | None = None
) -> list[float] | None:
    """m(1) to m(5); None where not all of ``types`` were measured."""
    corrupted = metrics["corrupted"]
    chosen = list(corrupted) if types is None else types
    if not chosen or any(c not in corrupted for c in chosen):
        return None
    return [at_severity(metrics, s, key, chosen) for s in (1, 2, 3, 4, 5)]


def mean(metrics: Metrics, key: str = "error", types: Collection[str] | None = None) -> float | None:
    """m; None where not all of ``types`` were measured."""
    levels = by_severity(metrics, key, types)
    return None if levels is None else fmean(levels)


def corruption_errors(errors: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    """CE(c), and the ratio of clean errors, from e(c) and clean errors; without those that divide by 0."""
    return {c: error / baseline[c] for c, error in errors.items() if baseline.get(c)}


def mean_corruption_error(
    ratios: Mapping[str, float], types: Collection[str] | None = None, clean: bool = False
) -> float:
    """mCE of :func:`corruption_errors`.

    Args:
        types: which; None: all there are.
        clean: count the clean ratio as one more type.

    Raises:
        UserError: a type that is not there.
    """
    chosen = [c for c in ratios if c != CLEAN] if types is None else [*types]
    chosen += [CLEAN] if clean else []
    for c in chosen:
        if c not in ratios:
            raise unknown_name("corruption type", c, ratios)
    return fmean(ratios[c] for c in chosen)
