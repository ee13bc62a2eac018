"""VGG-16 for 32x32 images as the WAS authors build it (was.md section 4; vgg.py, vgg_1d.py, vgg_2d.py)."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.errors import UserError
from benchmarks.models.layers import check_image_size, check_positive, check_probability, conv_norm

SHADOW_LAYERS = r"features\.(3|10|17|20|27|30|34|37|40)"
"""conv1_2, 2_2, 3_2, 3_3, 4_2, 4_3, 5_1, 5_2, 5_3: those with as many output as input channels."""


class VGG(nn.Module):
    """3x3 convolutions with BatchNorm and ReLU, max-pools, three fully connected layers with dropout.

    Maps [N, in_channels, H, W] to logits [N, num_classes].
    """

    shadow_layers: str = "auto"

    def __init__(
        self, features: nn.Sequential, width: int, hidden: int, dropout: float, num_classes: int
    ) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    layout: str = "64,64,M,128,128,M,256,256,256,M,512,512,512,M,512,512,512,M",
    hidden: int = 512,
    dropout: float = 0.5,
    shadow_layers: str = SHADOW_LAYERS,
) -> VGG:
    """VGG-16 with BatchNorm and biased convolutions, torch's default initialisation.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels.
        layout: channels of each convolution in order, ``M`` for a 2x2 max-pool.
        hidden: width of the two hidden fully connected layers: 512 in vgg_2d.py (T1), 4096 in vgg.py (the
            authors' baseline) and vgg_1d.py (T2).
        dropout: probability in the model's own dropout.
        shadow_layers: what WAS with ``layers="auto"`` transforms, a regular expression on module names.

    Raises:
        UserError: for a malformed layout, an image that is too small or a knob outside its range.
    """
    check_positive(hidden=hidden)
    check_probability(dropout=dropout)
    items = layout.split(",")
    if not all(item == "M" or (item.isdigit() and int(item) > 0) for item in items) or items[0] == "M":
        raise UserError(
            f"layout must be channels and M's with commas between them, such as 64,M,128; got {layout!r}"
        )
    pools = items.count("M")
    check_image_size(f"a VGG with {pools} max-pools", image_size, 2**pools)
    features = nn.Sequential()
    channels = in_channels
    for item in items:
        if item == "M":
            features.append(nn.MaxPool2d(2))
        else:
            features.extend(conv_norm(channels, int(item), 3))
            channels = int(item)
    model = VGG(features, channels * (image_size // 2**pools) ** 2, hidden, dropout, num_classes)
    model.shadow_layers = shadow_layers
    return model
