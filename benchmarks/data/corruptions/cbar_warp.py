"""The C-bar corruptions that move pixels. Their parameter is the published severity, 0 to 10.

Formulas: Mintun, Kirillov and Xie 2021. Where they take the size of a square image, this is the longer side.
"""

from __future__ import annotations

from itertools import permutations
from math import pi, sqrt

import torch
from torch import Tensor

from benchmarks.data.corruptions.cbar_noise import each, extent
from benchmarks.data.corruptions.draws import Draws
from benchmarks.data.corruptions.filters import bilinear, gaussian, grid, reflected

ROTATIONS = 21
SPLINE_POLE = sqrt(3) - 2


def ripple(images: Tensor, draws: Draws, level: float) -> Tensor:
    """Rows and columns each shifted along themselves by a sine, 0.0025 level of the size strong."""
    size = extent(images)
    lengths = draws.uniform(2, low=0.1, high=0.3) * size
    phases = draws.uniform(2, low=0, high=2 * pi)
    moved = [
        (
            place
            + level * 0.025 / 10 * size * torch.sin(2 * pi * place / each(lengths[:, i]) + each(phases[:, i]))
        )
        for i, place in enumerate(grid(images))
    ]
    shape = (len(images), *images.shape[2:])
    return bilinear(images, moved[0].expand(shape), moved[1].expand(shape), "black")


def pinch_and_twirl(images: Tensor, draws: Draws, level: float) -> Tensor:
    """In each of 3 x 3 round fields (5 x 5 from 224 pixels) the image is drawn outwards and turned, left or right."""
    fields = 5 if extent(images) >= 224 else 3
    sides = draws.integers(fields, fields, high=2) * 2 - 1  # [N, column of fields, row of fields]
    amount, angle = level * 0.4 / 10 + 0.1, level * (pi / 2) / 10
    rows, columns = grid(images)
    height, width = images.shape[2] // fields, images.shape[3] // fields
    row, column = rows.long().squeeze(1), columns.long().squeeze(0)
    field_row, field_column = row // max(height, 1), column // max(width, 1)
    inside = (field_row < fields).view(-1, 1) & (field_column < fields)
    side = sides[:, field_column.clamp(max=fields - 1)][:, :, field_row.clamp(max=fields - 1)].transpose(1, 2)
    middle_row = (field_row * height + height / 2).double().view(-1, 1)
    middle_column = (field_column * width + width / 2).double()
    down, right = rows - middle_row, columns - middle_column
    radius = min(height, width) / 2
    distance = torch.sqrt(down**2 + right**2)
    moving = inside & (distance <= radius) & ((distance * 1000).round() > 0)
    share = torch.where(moving, distance / radius, 1.0)
    stretch = torch.sin(pi * 0.5 * share) ** -amount
    turn = side * angle * (1 - share) ** 2
    down, right = down * stretch, right * stretch
    new_row = middle_row + (down * turn.cos() - right * turn.sin())
    new_column = middle_column + (down * turn.sin() + right * turn.cos())
    return bilinear(
        images, torch.where(moving, new_row, rows), torch.where(moving, new_column, columns), "black"
    )


def caustic_refraction(images: Tensor, draws: Draws, level: float) -> Tensor:
    """Seen through a water surface of caustic light: bent by up to the size times level / 20, and lit by it."""
    size = extent(images)
    time, scale = draws.uniform(low=0.5, high=2), draws.uniform(low=0.75, high=1.25) * size
    light = gaussian(_caustics(images, each(time), each(scale)).unsqueeze(1), 1.0, "symmetric")
    around = torch.nn.functional.pad(light, (1, 1, 1, 1)).squeeze(1)
    height, width = images.shape[2:]
    weight = 0.2126 + 0.7152 + 0.0722  # the brightness of a grey value

    def beside(down: int, right: int) -> Tensor:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] * weight

    down, right = beside(1, 0) - beside(-1, 0), beside(0, 1) - beside(0, -1)
    length = torch.sqrt(down**2 + right**2 + 1)
    slope = torch.sqrt(down**2 + right**2) / length  # of the surface's unit normal
    upright = 1 / length
    steep = upright < 1 - 1e-3
    turned = torch.asin(torch.sin(torch.acos(upright)) / 4)
    bend = torch.cos(turned) - torch.sin(turned) * upright / slope.masked_fill(~steep, 1)
    shift = [
        (bend * side / length * (level * 0.5 * size / 10) * steep * 1000).round() / 1000
        for side in (down, right)
    ]
    rows, columns = grid(images)
    seen = bilinear(images.double() / 255, rows + shift[0], columns + shift[1], "black")
    seen = seen + ((down - right) * level * 2 / 10).unsqueeze(1)
    return seen.clamp(0, 1) * 255


def _caustics(images: Tensor, time: Tensor, scale: Tensor) -> Tensor:
    """Light [N, H, W] on the ground of a pool, 0 to 1."""
    rows, columns = grid(images)
    y, x = ((place / scale) % 1 * 6.28318530718 - 250 for place in (rows, columns))
    down, right = y, x
    total: Tensor | float = 1.0
    for iteration in range(5):
        t = time * (1 - 3.5 / (iteration + 1))
        down, right = (
            y + torch.cos(t - down) + torch.sin(t + right),
            x + torch.sin(t - right) + torch.cos(t + down),
        )
        distance = torch.sqrt(
            (y / (torch.sin(down + t) / 0.005)) ** 2 + (x / (torch.cos(right + t) / 0.005)) ** 2
        )
        total = total + 1 / distance
    return ((1.17 - (total / 5) ** 1.4).abs() ** 8).clamp(0, 1)


def circular_motion_blur(images: Tensor, draws: Draws, level: float) -> Tensor:
    """The mean of 21 rotations by up to 1.5 level degrees, Gaussian-weighted; by cubic splines, black outside."""
    x = images.float() / 255
    spline = _spline_coefficients(_spline_coefficients(x.double(), 2), 3)
    spline = (
        spline.flatten(2).permute(2, 0, 1).contiguous()
    )  # [place, N, C]: all images move alike, line by line
    rows, columns = grid(images)
    middle_row, middle_column = (images.shape[2] - 1) / 2, (images.shape[3] - 1) / 2
    total, weights = torch.zeros(spline.shape, device=x.device), 0.0
    for number in range(ROTATIONS):
        part = 2 * number / (ROTATIONS - 1) - 1
        angle = torch.deg2rad(torch.tensor(part * level * 15 / 10, dtype=torch.float64, device=x.device))
        cosine, sine = angle.cos(), angle.sin()
        row = cosine * rows + sine * columns + (middle_row - (cosine * middle_row + sine * middle_column))
        column = (
            -sine * rows + cosine * columns + (middle_column - (-sine * middle_row + cosine * middle_column))
        )
        weight = float(torch.exp(torch.tensor(-2 * part**2, dtype=torch.float64)))
        total += weight * _cubic_at(spline, row, column).float()
        weights += weight
    return (total / weights * 255).permute(1, 2, 0).view(x.shape)


def _spline_coefficients(x: Tensor, dim: int) -> Tensor:
    """Coefficients of the cubic B-spline through the values of ``x`` along ``dim``, mirrored at the ends."""
    lines = list((x * ((1 - SPLINE_POLE) * (1 - 1 / SPLINE_POLE))).unbind(dim))
    count = len(lines)
    if count == 1:
        return x
    pole = SPLINE_POLE
    first = lines[0] + lines[-1] * pole ** (count - 1)
    for i in range(1, count - 1):
        first = first + (pole**i + pole ** (2 * count - 2 - i)) * lines[i]
    lines[0] = first / (1 - pole ** (2 * count - 2))
    for i in range(1, count):
        lines[i] = lines[i] + pole * lines[i - 1]
    lines[-1] = (pole * lines[-2] + lines[-1]) * pole / (pole * pole - 1)
    for i in range(count - 2, -1, -1):
        lines[i] = pole * (lines[i + 1] - lines[i])
    return torch.stack(lines, dim)


def _cubic_weights(share: Tensor) -> list[Tensor]:
    """Of the four spline coefficients about a place that lies ``share`` behind the second."""
    rest = 1 - share
    second = (share * share * (share - 2) * 3 + 4) / 6
    third = (rest * rest * (rest - 2) * 3 + 4) / 6
    first = rest**3 / 6
    return [first, second, third, 1 - first - second - third]


def _cubic_at(spline: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The spline [H * W, N, C] at the places (row, column) [H, W]; 0 outside."""
    height, width = row.shape
    inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
    top, left = row.floor(), column.floor()
    total = torch.zeros_like(spline)
    for down, row_weight in enumerate(_cubic_weights(row - top)):
        r = reflected(top.long() + down - 1, height, "mirror")
        for right, column_weight in enumerate(_cubic_weights(column - left)):
            c = reflected(left.long() + right - 1, width, "mirror")
            value = spline.index_select(0, (r * width + c).flatten())
            total += value.mul_((row_weight * column_weight).view(-1, 1, 1))
    return total.mul_(inside.view(-1, 1, 1))


def transverse_chromatic_abberation(images: Tensor, draws: Draws, level: float) -> Tensor:
    """The channels are enlarged by 1, 1 + level / 40 and 1 + level / 20, in random order; by unfiltered B-splines."""
    scales = (1.0, 1 + level * 0.5 / 10 / 2, 1 + level * 0.5 / 10)
    enlarged = torch.stack([_smooth_zoom(images, scale) for scale in scales], 1)  # [N, scale, channel, H, W]
    orders = torch.tensor(list(permutations(range(3))), device=images.device)
    order = orders[draws.integers(high=6)]  # [N, channel]
    everyone = torch.arange(len(images), device=images.device).view(-1, 1)
    return enlarged[everyone, order, torch.arange(3, device=images.device)]


def _smooth_zoom(images: Tensor, scale: float) -> Tensor:
    """uint8, the middle of the enlarged images; pixel values are taken as spline coefficients, which smooths."""
    x = images.double()
    for dim in (2, 3):
        size = x.shape[dim]
        enlarged = round(size * scale)
        step = (size - 1) / (enlarged - 1) if enlarged > 1 else 1.0
        start = (enlarged - size) // 2
        place = torch.arange(start, start + size, dtype=torch.float64, device=x.device) * step
        first = place.floor()
        shape = (-1, *[1] * (3 - dim))
        total = torch.zeros_like(x)
        for tap, weight in enumerate(_cubic_weights(place - first)):
            source = reflected(first.long() + tap - 1, size, "mirror")
            total += x.index_select(dim, source) * weight.view(shape)
        x = total
    return x.add(0.5).clamp(0, 255).to(torch.uint8)
