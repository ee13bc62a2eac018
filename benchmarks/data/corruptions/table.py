"""Parameter tables: what the five severities of each corruption mean, as data in ``configs/corruption``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from benchmarks.data.corruptions import blur, cbar_noise, cbar_warp, digital, noise, spatter, weather
from benchmarks.data.corruptions.weather import FROST_MISSING, photograph_folder
from benchmarks.errors import UserError, unknown_name
from benchmarks.terminal import warn

SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Callable[..., Tensor]
ParameterTable = Mapping[str, Sequence[Any]]
"""Corruption -> for each severity its parameter, or the list of its parameters."""

CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        digital.brightness,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
        noise.speckle_noise,
        blur.gaussian_blur,
        spatter.spatter,
        digital.saturate,
        cbar_noise.blue_noise_sample,
        cbar_noise.brownish_noise,
        cbar_noise.checkerboard_cutout,
        cbar_noise.cocentric_sine_waves,
        cbar_noise.inverse_sparkles,
        cbar_noise.lines,
        cbar_noise.perlin_noise,
        cbar_noise.plasma_noise,
        cbar_noise.single_frequency_greyscale,
        cbar_noise.sparkles,
        cbar_warp.caustic_refraction,
        cbar_warp.circular_motion_blur,
        cbar_warp.pinch_and_twirl,
        cbar_warp.ripple,
        cbar_warp.transverse_chromatic_abberation,
    )
}


def read_table(name: str) -> dict[str, list[Any]]:
    """The table ``configs/corruption/<name>.yaml``, or a plug-in's."""
    from benchmarks.registry import entries
    from benchmarks.typed import read_yaml

    known = entries("corruption")
    if name not in known:
        raise unknown_name("corruption table", name, known)
    return check_severities(read_yaml(known[name].path))


def check_severities(table: ParameterTable) -> dict[str, list[Any]]:
    """The table, or an error that names the entry which can't be used."""
    for name, values in table.items():
        if name not in CORRUPTIONS:
            raise unknown_name("corruption", name, CORRUPTIONS)
        if not isinstance(values, Sequence) or len(values) != len(SEVERITIES):
            count = len(values) if isinstance(values, Sequence) else values
            raise UserError(
                f"corruption {name!r} needs {len(SEVERITIES)} parameters, one a severity, not {count}"
            )
        for value in values:
            parameters(name, value)
    return {name: list(values) for name, values in table.items()}


def parameters(name: str, value: Any) -> dict[str, float]:
    """The parameters of one severity by name, from a table's entry: a number, or a list of them."""
    wanted = list(inspect.signature(CORRUPTIONS[name]).parameters)[2:]
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(given) != len(wanted) or not all(isinstance(x, int | float) for x in given):
        raise UserError(f"corruption {name!r} takes {' and '.join(wanted)} at each severity, not {value!r}")
    return dict(zip(wanted, given, strict=True))


def without_missing(table: ParameterTable) -> dict[str, Sequence[Any]]:
    """The table without what can't be made on this machine: frost, where its photographs are not installed."""
    if "frost" not in table or photograph_folder() is not None:
        return dict(table)
    _say_missing()
    return {name: values for name, values in table.items() if name != "frost"}


@cache
def _say_missing() -> None:
    warn(f"{FROST_MISSING}; the other corruptions go on without it")
