"""The small U-Net that sees right lung, left lung, ground glass and consolidation in three neighbouring slices."""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (24, 48, 96, 128)  # channels, from pixels of 4 mm down to 32 mm
SIDES, LESIONS = 3, 3  # none, right, left; none, ground glass, consolidation
MULTIPLE = 2 ** (len(WIDTHS) - 1)  # the picture's sides are multiples of this
_USUAL_HU, _BREATH_HU = -800.0, 100.0  # density of the clearest quarter of the lungs
_MIDDLE_HU, _HALF_WIDTH_HU, _LOWEST_HU, _HIGHEST_HU = -400.0, 600.0, -1024.0, 300.0


def normalise(hu: Tensor) -> Tensor:
    """Map HU to about -1..1, what is denser than soft tissue or emptier than air cut off."""
    return (hu.clamp(_LOWEST_HU, _HIGHEST_HU) - _MIDDLE_HU) / _HALF_WIDTH_HU


def _normalised_density(density: Tensor) -> Tensor:
    """Map how dense the clearest quarter of the lungs is, HU, to -1.5..2.5: about -950 to -550 HU."""
    return ((density - _USUAL_HU) / _BREATH_HU).clamp(-1.5, 2.5)


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015, MICCAI) of four levels, and what it says of lesions depends on the breath.

    In three slices haze all over looks like a shallow breath. So the density of the lungs in the whole scan comes in
    once they have been found: after the last level, which spares a second look.

    Args:
        norm: with batch normalisation, for training; without, its scale lies in the convolutions (see folded).
    """

    def __init__(self, norm: bool = False):
        """Build it with random weights."""
        super().__init__()
        ups = range(len(WIDTHS) - 1)
        self.down = nn.ModuleList(_block(i, o, norm) for i, o in zip((3, *WIDTHS), WIDTHS, strict=False))
        self.up = nn.ModuleList(_block(WIDTHS[k] + WIDTHS[k + 1], WIDTHS[k], norm) for k in ups)
        self.head = nn.Conv2d(WIDTHS[0], SIDES + LESIONS, 1)
        wide = WIDTHS[0]
        # What the density of the lungs adds to the lesions' logits: nothing, before it has learnt.
        added = nn.Conv2d(wide, LESIONS, 1)
        for parameter in added.parameters():
            nn.init.zeros_(parameter)
        self.beside = nn.Sequential(nn.Conv2d(wide + 1, wide, 3, padding=1), nn.ReLU(inplace=True), added)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 24, H, W) and logits of the sides (B, 3, H, W), for normalised slices (B, 3, H, W)."""
        skips = []
        x = images
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(x, scale_factor=2.0)
            x = self.up[level](torch.cat([skips[level], x], 1))
        return x, self.head(x)[:, :SIDES].float()

    def lesions(self, features: Tensor, density: Tensor) -> Tensor:
        """Return logits of the lesions (B, 3, H, W), for features and how dense the lungs are, HU (B,)."""
        breath = _normalised_density(density).to(features.dtype)[:, None, None, None]
        breath = breath.expand(-1, 1, *features.shape[2:])
        return (self.head(features)[:, SIDES:] + self.beside(torch.cat([features, breath], 1))).float()


def folded(trained: UNet) -> UNet:
    """Return a network without batch normalisation that computes the same in evaluation mode."""
    plain = UNet()
    for before, after in zip((*trained.down, *trained.up), (*plain.down, *plain.up), strict=True):
        convolutions = [m for m in after if isinstance(m, nn.Conv2d)]
        pairs = zip(before[0::3], before[1::3], convolutions, strict=True)
        for convolution, norm, target in pairs:
            fused = nn.utils.fuse_conv_bn_eval(convolution.eval(), norm.eval())
            target.load_state_dict(fused.state_dict())
    plain.head.load_state_dict(trained.head.state_dict())
    plain.beside.load_state_dict(trained.beside.state_dict())
    return plain.eval()


def _block(channels_in: int, channels_out: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers.append(nn.Conv2d(channels, channels_out, 3, padding=1, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(channels_out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
