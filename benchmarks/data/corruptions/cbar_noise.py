"""The C-bar corruptions that add to an image or cover it. Their parameter is the published severity, 0 to 10.

Formulas: Mintun, Kirillov and Xie 2021. Where they take the size of a square image, this is the longer side.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from benchmarks.data.corruptions.draws import Draws
from benchmarks.data.corruptions.filters import grid

RAYS = (50, 200)  # of a sparkle
GREY = 128


def extent(images: Tensor) -> int:
    return max(images.shape[2:])


def each(numbers: Tensor) -> Tensor:
    """[N] as [N, 1, 1], to go with [N, H, W]."""
    return numbers.view(-1, 1, 1)


def single_frequency_greyscale(images: Tensor, draws: Draws, level: float) -> Tensor:
    """x + 19.6 level * sin of one random spatial frequency and phase."""
    first = draws.uniform(low=-pi, high=pi)
    second = first.abs() * draws.uniform(low=-1, high=1)
    swapped = draws.integers(high=2).bool()
    phase = draws.uniform(low=0, high=2 * pi)
    rows, columns = grid(images)
    along_x, along_y = torch.where(swapped, second, first), torch.where(swapped, first, second)
    wave = torch.sin(columns * each(along_x) + rows * each(along_y) + each(phase))
    return images.double() + level * 196 / 10 * wave.unsqueeze(1)


def cocentric_sine_waves(images: Tensor, draws: Draws, level: float) -> Tensor:
    """x + 12.8 level * rings about a random place, wavy along their circle, from -1/2 to 1/2 across their width."""
    size = extent(images)
    place = draws.uniform(2, low=0, high=size)
    frequency = each(draws.uniform(low=0, high=10))
    amplitude, ring = each(draws.uniform(low=0, high=size / 10)), each(draws.uniform(low=0, high=size / 10))
    rows, columns = grid(images)
    across, down = columns - each(place[:, 0]), rows - each(place[:, 1])
    waves = torch.sin(torch.atan2(across, down) * frequency) * amplitude
    rings = ((torch.sqrt(across**2 + down**2) + waves) % ring) / ring - 0.5
    return images.double() + level * 128 / 10 * rings.unsqueeze(1)


def plasma_noise(images: Tensor, draws: Draws, level: float) -> Tensor:
    """A coloured field of 4 to 6 nested sines, 6.4 level strong, added to the image dimmed by 6.4 level / 255."""
    time = each(draws.uniform(low=0, high=6 * pi))
    iterations = each(draws.integers(low=4, high=7))
    sharpness = each(draws.uniform(low=0.5, high=1))
    scale = each(draws.uniform(low=0.075, high=0.2)) * extent(images)
    rows, columns = grid(images)
    x, y = columns / scale, (rows / scale).expand(-1, -1, images.shape[3])
    x = x.expand(y.shape)
    frequency, damping, divisor, shift = 1.0, 1.0, torch.ones_like(time), torch.zeros_like(time)
    for iteration in range(6):
        across = torch.cos(y * frequency - shift + time / damping) / divisor
        down = torch.sin(x * frequency - shift + time / damping) / divisor
        going = iteration < iterations
        x = x + going * (across - down * 0.3)
        y = y + going * (down + across * 0.3)
        shift = shift * (time * damping)
        frequency, damping, divisor = frequency * 1.93, damping * 1.15, divisor * (2.25 - sharpness)
    colours = (torch.sin(x - time), torch.sin((x + y + time.sin()) * 0.5), torch.sin(y + time))
    strength = level * 64 / 10
    return (1 - strength / 255) * images.double() + strength * torch.stack(colours, 1)


def perlin_noise(images: Tensor, draws: Draws, level: float) -> Tensor:
    """(1 - a) x + 255 a * (half the Perlin turbulence of five octaves + 1/2), a = level / 20; 7 x 7 lattice cells."""
    rows, columns = grid(images)
    unit = 32 * extent(images) / 224
    permutation, gradients = _perlin_tables(draws)
    turbulence = torch.zeros(len(images), *images.shape[2:], dtype=torch.float64, device=images.device)
    for octave in (1.0, 2.0, 4.0, 8.0, 16.0):
        field = _perlin(rows / unit * octave, columns / unit * octave, permutation, gradients)
        turbulence += field.abs() / octave
    share = level * 0.5 / 10
    noise = (0.5 * turbulence + 0.5).clamp(0, 1).unsqueeze(1)
    return (1 - share) * images.double() + 255 * share * noise


def _perlin_tables(draws: Draws) -> tuple[Tensor, Tensor]:
    """Permutations [N, 514] of 0..255, continued by their own beginning, and unit vectors [N, 2, 514] likewise."""
    vectors = (draws.integers(514, 2, high=512) - 256).double() / 256
    length = vectors.norm(dim=2, keepdim=True)
    gradients = vectors / (length + (length == 0))
    partner = draws.integers(256, high=256)
    permutation = torch.arange(514, device=draws.device).repeat(len(vectors), 1)
    for place in range(255, -1, -1):
        other = partner[:, 255 - place].unsqueeze(1)
        kept = permutation[:, place : place + 1].clone()
        permutation[:, place : place + 1] = permutation.gather(1, other)
        permutation.scatter_(1, other, kept)
    again = torch.arange(514, device=draws.device) % 256
    return permutation[:, again], gradients[:, again].transpose(1, 2).contiguous()


def _perlin(y: Tensor, x: Tensor, permutation: Tensor, gradients: Tensor) -> Tensor:
    """Gradient noise [N, H, W] at the places (y [H, 1], x [1, W]); y is the first coordinate."""
    cell_y, cell_x = y.floor().long() % 256, x.floor().long() % 256
    part_y, part_x = y - y.floor(), x - x.floor()
    shape = (len(permutation), y.shape[0], x.shape[1])

    def corner(down: int, right: int) -> Tensor:
        row = permutation[:, (cell_y + down).flatten() % 256].unsqueeze(2)
        number = permutation.gather(1, (row + (cell_x + right).flatten() % 256).flatten(1))
        first = gradients[:, 0].gather(1, number).view(shape)
        second = gradients[:, 1].gather(1, number).view(shape)
        return (part_y - down) * first + (part_x - right) * second

    smooth_y, smooth_x = (part**2 * (3 - 2 * part) for part in (part_y, part_x))
    left = corner(0, 0)
    left = left + smooth_y * (corner(1, 0) - left)
    right = corner(0, 1)
    right = right + smooth_y * (corner(1, 1) - right)
    return 1.5 * (left + smooth_x * (right - left))


def spectral_noise(draws: Draws, channels: int, power: Tensor) -> Tensor:
    """Noise [N, channels, H, W] of standard deviation 1 with random phases and the amplitudes ``power`` [H, W].

    The phases are mirrored, not of opposite sign, and the real part of the inverse transform is taken.
    """
    height, width = power.shape
    halves = [draws.uniform(height, width // 2, low=0, high=2 * pi) for _ in range(channels)]
    phases = torch.stack(halves, 1)
    middle = phases[..., :0]
    if width % 2:
        half = draws.uniform(channels, height // 2, 1, low=0, high=2 * pi)
        middle = torch.cat((half, half.new_zeros(*half.shape[:2], height % 2, 1), half.flip(2)), 2)
    phases = torch.cat((phases, middle, phases.flip(2, 3)), 3)
    spectrum = torch.polar(power.expand_as(phases).contiguous(), phases).roll(
        (height // 2, width // 2), (2, 3)
    )
    noise = torch.fft.ifft2(spectrum).real
    spread = noise.std((2, 3), keepdim=True, correction=0)
    return noise / (spread + (spread == 0))


def _distance(images: Tensor) -> Tensor:
    rows, columns = grid(images)
    return torch.sqrt((rows - images.shape[2] / 2) ** 2 + (columns - images.shape[3] / 2) ** 2)


def blue_noise_sample(images: Tensor, draws: Draws, level: float) -> Tensor:
    """Black where noise with amplitudes rising with frequency is not above 0.3 level - 2.5 standard deviations."""
    noise = spectral_noise(draws, 1, _distance(images))
    return images * (noise > level * 3 / 10 - 2.5)


def brownish_noise(images: Tensor, draws: Draws, level: float) -> Tensor:
    """x + 6.4 level * noise with amplitudes 1 / (frequency^2 + 1), each channel its own."""
    noise = spectral_noise(draws, images.shape[1], 1 / (_distance(images) ** 2 + 1))
    return images.double() + level * 64 / 10 * noise


def checkerboard_cutout(images: Tensor, draws: Draws, level: float) -> Tensor:
    """A share level / 10 of the black fields of a turned chess board is grey; fields are 1/10 to 1/4 of the image."""
    size = extent(images)
    angle = each(draws.uniform(low=0, high=2 * pi))
    field = each(draws.uniform(low=0.1, high=0.25) * size).clamp(min=1)
    fields = (4 * size / field).floor().long()  # along one side of the board
    chosen = draws.uniform(40 * 40) < level / 10
    rows, columns = grid(images)
    down = (angle.cos() * rows + angle.sin() * columns) / field
    right = (-angle.sin() * rows + angle.cos() * columns) / field
    white = (down % 2).long() != (right % 2).long()
    number = down.long() % fields * fields + right.long() % fields
    struck = chosen.gather(1, number.flatten(1)).view(white.shape) & ~white
    return torch.where(struck.unsqueeze(1), GREY, images)


def lines(images: Tensor, draws: Draws, level: float) -> Tensor:
    """level / 10 grey lines for each pixel of the size, about one direction, twice as long as the image is wide."""
    size = extent(images)
    angle = draws.uniform(low=0, high=2 * pi)
    spread = draws.uniform(low=0.1, high=1)
    rows, columns = grid(images)
    x = images
    for number in draws.uniform(int(level / 10 * size), 3).unbind(1):
        turned = angle + 2 * pi * spread * (number[:, 2] - 0.5)
        middle = number[:, :2] * size
        reach = torch.stack((turned.cos(), turned.sin()), 1) * size
        start, end = each_pair((middle - reach).trunc()), each_pair((middle + reach).trunc())
        long, wide = (end[0] - start[0]).abs(), (end[1] - start[1]).abs()
        down, right = (
            (rows - start[0]) * (end[0] - start[0]).sign(),
            (columns - start[1]) * (end[1] - start[1]).sign(),
        )
        off = (right * long - down * wide).abs() / torch.hypot(long, wide)  # distance from the line in pixels
        inside = (down >= 0) & (down <= long) & (right >= 0) & (right <= wide)
        cover = ((1 - off).clamp(min=0) * inside).unsqueeze(1)
        x = ((1 - cover) * x.double() + cover * GREY).to(torch.uint8)
    return x


def each_pair(places: Tensor) -> tuple[Tensor, Tensor]:
    return each(places[:, 0]), each(places[:, 1])


def sparkles(images: Tensor, draws: Draws, level: float) -> Tensor:
    """Five white stars of 50 to 199 rays and the radius level / 100 of the size."""
    size = extent(images)
    centres = draws.uniform(5, 2, low=0, high=size)
    radius = level / 100 * size
    rays = draws.integers(5, low=RAYS[0], high=RAYS[1])
    lengths = (radius + radius / 4 * draws.normal(5, RAYS[1])).clamp(min=1)
    x = images.double()
    for star in range(5):
        light = _star(images, centres[:, star], rays[:, star], lengths[:, star], 1.0)
        x = x + light * (255 - x)
    return x


def inverse_sparkles(images: Tensor, draws: Draws, level: float) -> Tensor:
    """White but for a star in the middle, which fades the faster the higher the level."""
    size = extent(images)
    centre = draws.uniform(2, low=0.25, high=0.75) * size
    rays = draws.integers(low=RAYS[0], high=RAYS[1])
    lengths = size / 4 + size / 16 * draws.normal(RAYS[1])
    light = _star(images, centre, rays, lengths, level * 65 / 10 / 50)
    return 255 + light * (images.double() - 255)


def _star(images: Tensor, centre: Tensor, rays: Tensor, lengths: Tensor, power: float) -> Tensor:
    """Brightness [N, 1, H, W]: (ray length / distance)^(2 power), a little less beside the rays, at most 1."""
    rows, columns = grid(images)
    down, right = rows - each(centre[:, 0]), columns - each(centre[:, 1])
    place = (torch.atan2(right, down) + pi) / (2 * pi) * each(rays)
    ray = place.floor()
    beside = place - ray
    flat = ray.long().flatten(1)
    this, following = (
        lengths.gather(1, (flat + step) % rays.unsqueeze(1)).view(ray.shape) for step in (0, 1)
    )
    length = this + beside * (following - this)
    fading = (length**2 / (down**2 + right**2 + 1e-4)) ** power
    return ((1 - (beside - 0.5) ** 2) * fading).clamp(0, 1).unsqueeze(1)
