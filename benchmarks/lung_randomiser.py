"""Change slices of phantoms at random, so that real ones lie among them: what `train_lung_network.py` learns from.

All is done on batches with torch. HU throughout; a sample is three neighbouring slices, and its labels are those of the
middle one.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

PIXEL_MM = 4.0
TISSUE_HU, SPAN_HU = 40.0, 1040.0  # from airless lung to air


@dataclass
class Batch:
    """Slices and what is known of them, each (B, 3, H, W); `flags` say what a voxel is, see make_slices."""

    hu: Tensor
    side: Tensor  # 0, 1 right, 2 left
    lesion: Tensor  # 0, 1 ground glass, 2 consolidation
    vessel: Tensor
    airway: Tensor
    depth: Tensor  # mm inside the lungs
    beyond: Tensor  # mm outside them
    low: Tensor  # (B,) share of the height, 0 at the lowest slice

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return self.hu.shape[-1]

    @property
    def row(self) -> Tensor:
        """Place from front (-1) to back (1), (1, 1, H, 1)."""
        return torch.linspace(-1, 1, self.size)[None, None, :, None]

    @property
    def column(self) -> Tensor:
        """Place from the picture's left (-1) to its right (1), (1, 1, 1, W)."""
        return torch.linspace(-1, 1, self.size)[None, None, None, :]

    @property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """Numbers of the lines, (1, 1, H, 1), and of the columns, (1, 1, 1, W)."""
        numbers = torch.arange(self.size).float()
        return numbers[None, None, :, None], numbers[None, None, None, :]

    @property
    def heart(self) -> Tensor:
        """Mark heart and great vessels, and whatever else dense lies between the lungs, (B, 3, H, W)."""
        return (between(self.side) * (self.side == 0) * (self.hu > -300)).float()

    def turned(self, y: Tensor, x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Place along and across a direction, mm from a line and column: each (B, 1, H, W), of (B, 1, 1, 1) radians."""
        line, column = self.pixels
        right, down = (column - x) * PIXEL_MM, (line - y) * PIXEL_MM
        return angle.cos() * right + angle.sin() * down, angle.cos() * down - angle.sin() * right

    @property
    def air(self) -> Tensor:
        """Share of air in every voxel, by its attenuation, (B, 3, H, W)."""
        return (TISSUE_HU - self.hu) / SPAN_HU

    @property
    def usual_air(self) -> Tensor:
        """Mean share of air in each sample's healthy lung, (B, 1, 1, 1); of a deep breath where there is hardly any."""
        healthy = ((self.side > 0) & (self.lesion == 0) & (self.hu < -500)).float()
        count = healthy.sum((1, 2, 3), keepdim=True)
        mean = (self.air * healthy).sum((1, 2, 3), keepdim=True) / count.clamp(min=1)
        return torch.where(count > 20, mean, 0.86)

    def thicken(self, share: Tensor) -> None:
        """Let tissue take a share, 0..1 or a little more, of the air in every voxel that holds some."""
        self.hu = self.hu + share * (TISSUE_HU - self.hu).clamp(min=0)


class Randomiser:
    """Draw everything from one generator, so that a seed means the same batches."""

    def __init__(self, seed: int):
        self.rng = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.rng)

    def chance(self, share: float, batch: int) -> Tensor:
        return (torch.rand(batch, 1, 1, 1, generator=self.rng) < share).float()

    def draw(self, low: float, high: float, batch: int) -> Tensor:
        return self.uniform(low, high, batch, 1, 1, 1)

    def field(self, batch: int, size: int, step_mm: float) -> Tensor:
        """Smooth noise (B, 1, size, size), sd about 1, without structure finer than step_mm."""
        knots = max(2, round(size * PIXEL_MM / step_mm) + 2)
        coarse = torch.randn(batch, 1, knots, knots, generator=self.rng)
        return 1.4 * functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)

    def __call__(self, batch: Batch, pixel_mm: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return HU, side and lesion labels of the slices, each (B, 3, size, size), and the lungs' density, HU (B,)."""
        b = self._place(batch, pixel_mm, size)
        alone = self.chance(0.2, len(b.hu))  # seen without its neighbours
        self._breath(b)
        density = self._density(b)
        self._some(b, 0.40, self._soft_border)
        self._some(b, 0.40, self._wide_vessels)
        self._some(b, 0.50, self._twigs)
        self._some(b, 0.30, self._ground_glass)
        self._some(b, 0.24, self._consolidation)
        self._some(b, 0.14, self._effusion)
        self._some(b, 0.45, self._bulges)
        self._some(b, 0.45, self._domes, among=(b.low < 0.55) & (alone.flatten() == 0))
        self._some(b, 0.40, self._fat)
        self._some(b, 0.45, self._hilum)
        self._some(b, 0.45, self._beat)
        self._some(b, 0.12, self._abdomen)
        self._some(b, 0.30, self._thin_wall)
        self._some(b, 0.55, self._cartilage)
        self._some(b, 0.20, self._contrast)
        self._some(b, 0.70, self._gas, among=b.low < 0.4)
        self._some(b, 0.06, self._gas)
        self._some(b, 0.20, self._arms)
        self._some(b, 0.45, self._table)
        self._some(b, 0.25, self._table)
        return *self._scan(b, alone), density

    def _density(self, b: Batch) -> Tensor:
        """Say how dense the clearest quarter of the lungs is in the whole scan, of which these slices are a few."""
        n = len(b.hu)
        clear = TISSUE_HU - SPAN_HU * b.usual_air - self.draw(0, 70, n)
        clear = clear + 25 * torch.randn(n, 1, 1, 1, generator=self.rng)
        return (clear + self.draw(0, 150, n) * self.chance(0.2, n)).flatten()  # of some, hardly a quarter is clear

    def _some(self, b: Batch, share: float, change: Callable[[Batch], None], among: Tensor | None = None) -> None:
        """Change some of the samples in place: cheaper than changing all and keeping some."""
        chosen = torch.rand(len(b.hu), generator=self.rng) < share
        index = torch.nonzero(chosen if among is None else chosen & among)[:, 0]
        if len(index):
            part = Batch(*(getattr(b, field.name)[index] for field in fields(b)))
            change(part)
            b.hu[index], b.side[index], b.lesion[index] = part.hu, part.side, part.lesion

    def grain(self, b: Batch) -> Tensor:
        """Fine texture, sd about 1, the three slices apart."""
        return functional.avg_pool2d(torch.randn(b.hu.shape, generator=self.rng), 3, 1, 1) * 3

    # ------------------------------------------------------------------ shape

    def _place(self, b: Batch, pixel_mm: Tensor, size: int) -> Batch:
        """Resample to PIXEL_MM with random zoom, aspect, rotation, shift, bending and mirroring."""
        n, height = len(b.hu), b.hu.shape[-1]
        zoom = self.uniform(0.8, 1.3, n)
        ratio = PIXEL_MM / pixel_mm / zoom * size / height  # output half width in input half widths
        angle = self.uniform(-0.25, 0.25, n) * (torch.rand(n, generator=self.rng) < 0.6)
        across, along = self.uniform(0.92, 1.08, n), self.uniform(0.85, 1.08, n)
        mirrored = torch.rand(n, generator=self.rng) < 0.5
        flip = torch.where(mirrored, -1.0, 1.0)
        cos, sin = angle.cos(), angle.sin()
        shift = self.uniform(-0.12, 0.12, n, 2) * torch.where(torch.rand(n, 1, generator=self.rng) < 0.3, 2.5, 1.0)
        theta = torch.stack(
            [
                torch.stack([ratio * across * cos * flip, -ratio * along * sin, shift[:, 0]], 1),
                torch.stack([ratio * across * sin * flip, ratio * along * cos, shift[:, 1]], 1),
            ],
            1,
        )
        grid = functional.affine_grid(theta, [n, 1, size, size], align_corners=False)
        bend = torch.cat([self.field(n, size, 100), self.field(n, size, 100)], 1).permute(0, 2, 3, 1)
        grid = grid + bend * self.uniform(0, 0.02, n)[:, None, None, None]
        smooth = torch.cat([b.hu + 1000, b.depth, 255 - b.beyond], 1)
        smooth = functional.grid_sample(smooth, grid, align_corners=False)  # outside: air, far away
        exact = torch.cat([b.side, b.lesion, b.vessel, b.airway], 1)
        exact = functional.grid_sample(exact, grid, mode="nearest", align_corners=False)
        hu, depth, near = smooth.chunk(3, 1)
        side, lesion, vessel, airway = exact.chunk(4, 1)
        swapped = torch.where(side > 0, 3 - side, side)
        side = torch.where(mirrored[:, None, None, None], swapped, side)
        scale = (zoom * 1.0)[:, None, None, None]
        return Batch(hu - 1000, side, lesion, vessel, airway, depth * scale, (255 - near) * scale, b.low)

    # ------------------------------------------------------------------ inside the lungs

    def _breath(self, b: Batch) -> None:
        """Let the lungs hold another share of air, and let weight make them denser towards one side."""
        n, size = len(b.hu), b.hu.shape[-1]
        lung = b.side > 0
        air, usual = b.air, b.usual_air
        deep = self.draw(-930, -800, n)
        free = self.draw(-820, -600, n)
        wanted = torch.where(self.chance(0.55, n) > 0, free, deep)
        row = b.row
        inside = lung.float().sum((1, 2, 3), keepdim=True).clamp(min=1)
        middle = (row * lung).sum((1, 2, 3), keepdim=True) / inside
        ramp = (row - middle) * self.draw(-0.05, 0.55, n) * self.draw(0, 1, n)
        ramp = ramp + b.column * self.draw(-0.08, 0.08, n)
        gain = (TISSUE_HU - wanted) / SPAN_HU / usual * (1 - ramp)
        # Healthy lung is uneven, the more the less air it holds: of real ones the local mean strays by 1% of its air
        # after a deep breath and by 2% in free breathing (20 mm; benchmarks/phantom_realism.py).
        patches = 0.8 * self.field(n, size, 60) + 0.6 * self.field(n, size, 25)
        gain = gain * (1 + patches * self.draw(0, 1, n) * (0.02 + 0.07 * _shallow((TISSUE_HU - wanted) / SPAN_HU)))
        # Ground glass fainter than the phantom's, as much as that, and denser.
        excess = (usual - air).clamp(min=0) * self.draw(-0.35, 1.0, n)
        ill = functional.avg_pool2d((b.lesion == 1).float(), 3, 1, 1)
        air = air - excess * ill
        # Weight also presses a rim at the back; it is no disease.
        rim = torch.exp(-((b.depth / self.draw(3, 11, n)) ** 2)) * (row > middle + self.draw(0.0, 0.4, n))
        gain = gain * (1 - rim * self.draw(0.1, 0.55, n) * self.chance(0.45, n))
        # And all around the border lies a layer with a little less air.
        layer = torch.exp(-((b.depth / self.draw(3, 7, n)) ** 2)) * (1 + 0.4 * self.field(n, size, 40)).clamp(min=0)
        gain = gain * (1 - layer * self.draw(0, 0.14, n) * self.chance(0.7, n))
        air = air * gain + self.grain(b) * self.draw(0, 0.025, n) * (air > 0.2)
        b.hu = torch.where(lung, TISSUE_HU - SPAN_HU * air.clamp(-0.1, 0.99), b.hu)

    def _soft_border(self, b: Batch) -> None:
        """Let the border fade over some mm where it moves: at dome and apex, oblique to the slices, and at the heart.

        None of that is disease. At the ribs, where haze likes to begin, it seldom fades.
        """
        n = len(b.hu)
        fading = torch.exp(-((b.depth / self.draw(2, 10, n)) ** 2)) * (b.side > 0) * (b.lesion == 0)
        here = (self.field(n, b.size, 45) > self.draw(-1.0, 1.2, n)).float()
        here = functional.avg_pool2d(here, 7, 1, 3) * torch.maximum(self._moving(b), self.chance(0.25, n))
        b.thicken(fading * here * self.draw(0.2, 0.9, n))

    def _moving(self, b: Batch) -> Tensor:
        """Mark, (B, 1, H, W), what is near the heart or near a border that goes steeply across the slices."""
        changed = ((b.side[:, 1:2] > 0) != (b.side > 0)).float()
        oblique = (functional.avg_pool2d(changed, 3, 1, 1) > 0.5).float().amax(1, keepdim=True)
        return functional.max_pool2d(torch.maximum(oblique, b.heart.amax(1, keepdim=True)), 9, 1, 4)

    def _wide_vessels(self, b: Batch) -> None:
        """Let vessels take more of the pixels around them: wide, and healthy."""
        near = functional.avg_pool2d(functional.max_pool2d(b.vessel, 3, 1, 1), 3, 1, 1)
        b.thicken((near * self.draw(0.2, 1.3, len(b.hu))).clamp(max=1) * (b.side > 0) * (b.lesion == 0))

    def _twigs(self, b: Batch) -> None:
        """Let more fine vessels run through the lungs, dots and streaks, which are healthy.

        Of real lungs twice as much is bright near the pleura as of phantoms' (benchmarks/phantom_realism.py).
        """
        n = len(b.hu)
        dots = (torch.rand(n, 1, b.size, b.size, generator=self.rng) < self.draw(0.005, 0.06, n)).float()
        across, along = int(self.uniform(-1, 2, 1)), int(self.uniform(-1, 2, 1))  # from slice to slice
        dots = torch.cat([dots.roll((-along, -across), (2, 3)), dots, dots.roll((along, across), (2, 3))], 1)
        dots = dots * (torch.rand(dots.shape, generator=self.rng) < 0.8)
        for axis in ((1, 3), (3, 1)):
            pad = (axis[0] // 2, axis[1] // 2)
            dots = torch.where(self.chance(0.3, n) > 0, functional.max_pool2d(dots, axis, 1, pad), dots)
        soft = 0.6 * dots + 0.4 * functional.avg_pool2d(dots, 3, 1, 1)
        b.thicken(soft * self.draw(0.05, 0.4, n) * (b.side > 0))

    def _ground_glass(self, b: Batch) -> None:
        weight = self._patch(b, soft=self.draw(0.08, 0.6, len(b.hu)))
        air = b.air
        # As often as not so faint that only the lung beside it tells.
        faint = self.chance(0.5, len(b.hu))
        lost = torch.where(faint > 0, self.draw(0.07, 0.22, len(b.hu)), self.draw(0.1, 0.65, len(b.hu)))
        # In lungs that hold little air, healthy patches look like that, so that what is ill stands out more.
        lost = lost + 0.13 * _shallow(b.usual_air)
        lost = lost * (1 + 0.3 * self.field(len(b.hu), b.size, 15)).clamp(0.4, 1.6)
        new = air.clamp(min=0) * (1 - lost) + self.grain(b) * self.draw(0, 0.05, len(b.hu))
        self._lay(b, weight, air, new, 1.0)

    def _consolidation(self, b: Batch) -> None:
        weight = self._patch(b, soft=self.draw(0.03, 0.15, len(b.hu)))
        air = b.air
        new = self.draw(-0.06, 0.12, len(b.hu)) + self.grain(b) * self.draw(0, 0.04, len(b.hu))
        self._lay(b, weight, air, torch.where((b.airway > 0) | (air < 0), air, new), 2.0)

    def _patch(self, b: Batch, soft: Tensor) -> Tensor:
        """Return a weight 0..1 that covers 4 to 99% of one lung or both, in patches of any size, by place or not."""
        n = len(b.hu)
        only = self._one_or_both(b)
        step = float(self.uniform(12, 65, 1))
        liking = self.field(n, b.size, step) + 0.5 * self.field(n, b.size, step / 2)
        liking = liking + b.row * self.draw(-1, 4, n) + b.column * self.draw(-2.5, 2.5, n)
        liking = liking - b.depth / 30.0 * self.draw(-0.5, 2.5, n)
        area = only.sum((1, 2, 3), keepdim=True).clamp(min=1)
        mean = (liking * only).sum((1, 2, 3), keepdim=True) / area
        sd = (((liking - mean) ** 2 * only).sum((1, 2, 3), keepdim=True) / area).sqrt().clamp(min=1e-3)
        return torch.sigmoid(((liking - mean) / sd - self.draw(-2.2, 1.8, n)) / soft) * only

    def _one_or_both(self, b: Batch) -> Tensor:
        n = len(b.hu)
        one = 1 + (torch.rand(n, 1, 1, 1, generator=self.rng) < 0.5).float()
        return torch.where(self.chance(0.5, n) > 0, (b.side == one).float(), (b.side > 0).float())

    def _lay(self, b: Batch, weight: Tensor, air: Tensor, new: Tensor, kind: float) -> None:
        b.hu = torch.where(b.side > 0, TISSUE_HU - SPAN_HU * (air + weight * (new - air)), b.hu)
        b.lesion = torch.where((weight > 0.5) & (b.lesion < kind), kind, b.lesion)

    def _effusion(self, b: Batch) -> None:
        """Put fluid behind the lung, which then is lung no more, and press the lung beside it airless."""
        n = len(b.hu)
        reach = self.draw(4, 90, n) * (1 + 0.3 * self.field(n, b.size, 50))
        fluid = ((b.row > self.draw(-0.6, 0.5, n)) & (b.depth < reach)).float() * self._one_or_both(b)
        grain = torch.randn(b.hu.shape, generator=self.rng) * 6
        thick = int(self.uniform(2, 11, 1))  # pixels, up to most of a lobe
        beside = functional.max_pool2d(fluid, 2 * thick + 1, 1, thick) * (b.side > 0) * (1 - fluid)
        beside = beside * self.chance(0.6, n)
        b.hu = torch.where(fluid > 0, self.draw(-8, 40, n) + grain, b.hu)
        b.hu = torch.where(beside > 0, self.draw(20, 90, n) + grain, b.hu)
        b.side = torch.where(fluid > 0, 0.0, b.side)
        b.lesion = torch.where(fluid > 0, 0.0, torch.where(beside > 0, 2.0, b.lesion))

    def _bulges(self, b: Batch) -> None:
        """Let aorta, heart or a hernia bulge into a lung from the middle: round, of blood or tissue, and no lung."""
        n = len(b.hu)
        line, column = b.pixels
        for side, share, sign in ((2.0, 0.9, 1.0), (1.0, 0.25, -1.0)):
            lung = (b.side[:, 1] == side).float()
            edge, y, present = self._inner_edge(lung, sign, 0.4, 0.95)
            radius = self.draw(8, 21, n) / PIXEL_MM
            x = edge + sign * radius * self.draw(-0.9, 0.7, n)
            distance = ((column - x) ** 2 + (line - y) ** 2).sqrt()
            weight = (0.5 - (distance - radius).clamp(-0.5, 0.5)) * present * self.chance(share, n)
            blood = self.draw(25, 75, n) + self.draw(0, 250, n) * self.chance(0.25, n)
            self._displace(b, weight, blood)

    def _domes(self, b: Batch) -> None:
        """Let a dome of the diaphragm rise into a lung: an island of tissue with lung on all sides, and no lung.

        What tells it from a consolidation of that shape is that it grows from each slice to the one below: so none
        where a slice is seen alone.
        """
        n = len(b.hu)
        line, _ = b.pixels
        apart = self.draw(2.5, 12, n) * torch.tensor([1.0, 0.0, -1.0])[None, :, None, None]  # the first slice is lowest
        for side in (1.0, 2.0):
            lung = (b.side == side).float()
            filled = torch.maximum(lung, (b.airway > 0).float())
            y, x = _somewhere(lung[:, 1] * b.depth[:, 1] * torch.rand(n, b.size, b.size, generator=self.rng))
            angle, long = self.draw(0, 3.15, n), self.draw(1, 1.6, n)
            along, across = b.turned(y, x, angle)
            fall = ((along / long) ** 2 + across**2) / (2 * self.draw(15, 80, n))  # a paraboloid, mm below its top
            height = self.draw(-6, 25, n) + apart - fall * (1 + 0.25 * self.field(n, b.size, 40)).clamp(min=0.5)
            # A thick slice, or one taken while the dome moves, holds both, dome and lung.
            weight = (0.5 + height / self.draw(1, 14, n)).clamp(0, 1) * filled * self.chance(0.6, n)
            organ = torch.where(self.chance(0.15, n) > 0, self.draw(-115, -70, n), self.draw(25, 130, n))
            organ = organ + self.grain(b) * self.draw(0, 8, n)
            gas = (
                (height > self.draw(4, 12, n))
                & ((line - y) * PIXEL_MM < self.draw(-15, 10, n))
                & (self.chance(0.2, n) > 0)
            )
            organ = torch.where(gas, -1000.0, organ)
            self._displace(b, weight, organ)

    def _inner_edge(self, lung: Tensor, sign: float, low: float, high: float) -> tuple[Tensor, Tensor, Tensor]:
        """Find where lungs (B, H, W) end towards the middle, on a line between two shares of their height.

        Returns:
            Column, line, and whether there is lung on that line, each (B, 1, 1, 1). `sign` is 1 where the middle lies
            to the left of the lung in the picture, -1 where it lies to the right.
        """
        n, size = lung.shape[:2]
        rows = lung.amax(2)
        first = rows.argmax(1).float()
        last = size - 1 - rows.flip(1).argmax(1).float()
        y = (first + (last - first) * self.uniform(low, high, n)).round().long().clamp(0, size - 1)
        across = lung[torch.arange(n), y] if sign > 0 else lung[torch.arange(n), y].flip(1)
        edge = across.argmax(1).float()
        edge = edge if sign > 0 else size - 1 - edge
        column, line, present = (t[:, None, None, None] for t in (edge, y.float(), across.amax(1) > 0))
        return column, line, present

    def _displace(self, b: Batch, weight: Tensor, tissue: Tensor) -> None:
        """Put tissue where lung was, as far as a weight 0..1 says; half of it and more is no lung and no lesion."""
        b.hu = b.hu + weight * (tissue - b.hu)
        b.side = torch.where(weight > 0.5, 0.0, b.side)
        b.lesion = torch.where(weight > 0.5, 0.0, b.lesion)

    # ------------------------------------------------------------------ between the lungs

    def _fat(self, b: Batch) -> None:
        """Turn some of the tissue between the lungs into fat, in patches of any size, and vary the rest."""
        n = len(b.hu)
        tissue = (between(b.side) * (b.side == 0) * (b.hu > -60) * (b.hu < 120)).float()
        fat = torch.sigmoid((self.field(n, b.size, float(self.uniform(15, 60, 1))) - self.draw(-0.3, 1.8, n)) / 0.2)
        new = fat * self.draw(-120, -70, n) + (1 - fat) * (b.hu + self.field(n, b.size, 25) * self.draw(0, 15, n))
        b.hu = b.hu + tissue * (new - b.hu)

    def _hilum(self, b: Batch) -> None:
        """Let vessels and nodes as wide as real ones run from the middle into the lungs: no disease, first no lung."""
        n = len(b.hu)
        line, column = b.pixels
        for side, sign in ((2.0, 1.0), (1.0, -1.0)):
            lung = (b.side[:, 1] == side).float()
            blood = self.draw(20, 65, n) + self.draw(0, 250, n) * self.chance(0.3, n)
            for _ in range(3):
                edge, start_y, present = self._inner_edge(lung, sign, 0.35, 0.8)
                start_x = edge - sign
                turn, length = self.draw(-1.1, 1.1, n), self.draw(8, 45, n) / PIXEL_MM
                step_x, step_y = sign * turn.cos(), turn.sin()
                along = ((column - start_x) * step_x + (line - start_y) * step_y).clamp(min=0)
                along = torch.minimum(along, length)
                distance = ((column - start_x - along * step_x) ** 2 + (line - start_y - along * step_y) ** 2).sqrt()
                radius = self.draw(4, 11, n) / PIXEL_MM * (1 - 0.5 * along / length)
                weight = (0.5 - (distance - radius).clamp(-0.5, 0.5)) * present
                weight = weight * self.chance(0.7, n) * (b.side == side) * (b.lesion == 0)
                b.hu = b.hu + weight * (blood - b.hu)
                b.side = torch.where((weight > 0.5) & (along < 0.5 * length), 0.0, b.side)

    def _beat(self, b: Batch) -> None:
        """Let heart and great vessels beat: their border fades over some mm to cm of healthy lung."""
        n = len(b.hu)
        near = b.heart
        for _ in range(int(self.uniform(1, 6, 1))):
            near = _blur(near)
        here = (self.field(n, b.size, 45) > self.draw(-1.2, 0.8, n)).float()
        fading = (near * self.draw(0.3, 1.4, n)).clamp(max=0.85) * functional.avg_pool2d(here, 7, 1, 3)
        b.thicken(fading * (b.side > 0) * (b.lesion == 0))

    # ------------------------------------------------------------------ outside the lungs

    def _abdomen(self, b: Batch) -> None:
        """Fill what was lung with liver and fat, and put bowel gas anywhere."""
        n = len(b.hu)
        tissue = torch.where(self.field(n, b.size, 40) > self.draw(-1, 1.5, n), self.draw(30, 90, n), -105.0)
        was_lung = (b.side > 0) | (b.airway > 0) | ((b.depth > 0) & (b.hu < -200))
        b.hu = torch.where(was_lung, tissue.expand_as(b.hu), b.hu)
        b.side, b.lesion, b.beyond = torch.zeros_like(b.side), torch.zeros_like(b.side), torch.full_like(b.beyond, 99.0)
        b.depth, b.airway = torch.zeros_like(b.depth), torch.zeros_like(b.depth)
        self._gas(b, self.draw(0.0, 1.6, n))

    def _gas(self, b: Batch, much: Tensor | None = None) -> None:
        """Put gas and what is mottled like lung into stomach and bowel."""
        n = len(b.hu)
        much = self.draw(0.9, 2.2, n) if much is None else much
        room = (b.hu > -180) & (b.hu < 130) & (b.side == 0) & (b.beyond > 5)
        room = functional.avg_pool2d(room.float(), 3, 1, 1) > 0.95
        step = float(self.uniform(20, 60, 1))
        filled = (self.field(n, b.size, step) - 0.8 * b.row * self.chance(0.6, n) > much) & room
        stool = self.draw(-900, -100, n) + 150 * self.field(n, b.size, 10)
        gas = torch.where(self.chance(0.3, n) > 0, stool.clamp(-1000, 60), torch.full((1,), -1000.0))
        edge = functional.avg_pool2d(filled.float(), 3, 1, 1)
        b.hu = b.hu + edge * (gas - b.hu) * filled

    def _thin_wall(self, b: Batch) -> None:
        """End the body a few mm behind the lungs, but for what lies between them."""
        n = len(b.hu)
        area = (b.side[:, 1:2] > 0).sum((1, 2, 3), keepdim=True) * PIXEL_MM**2 / 100
        wall = self.draw(4, 30, n) * (1 + 0.3 * self.field(n, b.size, 75))
        off = (area > 60) & (b.beyond > wall) & (between(b.side) == 0) & (b.side == 0)
        b.hu = torch.where(off, -1000.0, b.hu)

    def _cartilage(self, b: Batch) -> None:
        """Let the ribs end in cartilage beside the breastbone: dense ovals in the wall in front, which are no lung."""
        n = len(b.hu)
        line, _ = b.pixels
        lines = (b.side > 0).float().amax((1, 3), keepdim=True)
        first, count = lines.argmax(2, keepdim=True), lines.sum(2, keepdim=True)
        wall = (b.beyond[:, 1:2] > 2) & (b.beyond[:, 1:2] < 14) & (b.hu[:, 1:2] > -200) & (line < first + 0.35 * count)
        for _ in range(3):
            y, x = _somewhere(wall.float() * torch.rand(wall.shape, generator=self.rng))
            angle, long, short = self.draw(0, 3.15, n), self.draw(8, 30, n), self.draw(4, 12, n)
            along, across = b.turned(y, x, angle)
            distance = ((along / long) ** 2 + (across / short) ** 2).sqrt()
            present = (
                (distance < 1) & (b.side == 0) & (b.beyond > 0.5) & (b.depth < 1) & wall.amax((1, 2, 3), keepdim=True)
            )
            rim = (distance > 0.7) * self.draw(0, 350, n) * self.chance(0.4, n)
            b.hu = torch.where(present, self.draw(50, 190, n) + rim + self.grain(b) * self.draw(0, 20, n), b.hu)

    def _contrast(self, b: Batch) -> None:
        """Brighten what lies between the lungs, and their vessels."""
        n = len(b.hu)
        bright = self.draw(0, 230, n) * (self.field(n, b.size, 30) > -0.4)
        heart = (between(b.side) > 0) & (b.hu > 25) & (b.side == 0)
        b.hu = b.hu + bright * heart + 0.7 * bright * (b.vessel * (b.side > 0))

    def _arms(self, b: Batch) -> None:
        n = len(b.hu)
        line, column = b.pixels
        wide = (b.hu > -350).float().amax((1, 2), keepdim=True)
        first = wide.argmax(-1, keepdim=True).float()
        last = b.size - 1 - wide.flip(-1).argmax(-1, keepdim=True).float()
        for edge_column, sign in ((first, -1.0), (last, 1.0)):
            radius = self.draw(25, 55, n) / PIXEL_MM
            centre_x = edge_column + sign * (radius + self.draw(0, 3, n))
            centre_y = b.size * self.draw(0.35, 0.75, n)
            distance = ((column - centre_x) ** 2 + ((line - centre_y) * self.draw(0.6, 1.1, n)) ** 2).sqrt()
            here = (self.chance(0.8, n) > 0) & (distance < radius) & (b.hu < -350) & (b.side == 0) & (b.depth < 1)
            arm = torch.where(distance < radius - self.draw(1, 4, n), 45.0, -100.0)
            b.hu = torch.where(here, torch.where(distance < radius * 0.28, 700.0, arm).expand_as(b.hu), b.hu)

    def _table(self, b: Batch) -> None:
        """Lay a table or a blanket behind the body, with foam on it or without."""
        n = len(b.hu)
        line, column = b.pixels
        tall = (b.hu > -350).float().amax((1, 3), keepdim=True)
        back = b.size - 1 - tall.flip(2).argmax(2, keepdim=True).float()
        bow = self.draw(-0.006, 0.012, n) * (column - b.size * self.draw(0.4, 0.6, n)) ** 2
        below = line - (back + self.draw(0.5, 14, n) - bow)
        wide = ((column - b.size / 2).abs() < b.size * self.draw(0.2, 0.7, n)) & (b.depth < 1)
        thick = self.draw(0.3, 1.3, n)
        b.hu = torch.where((below.abs() < thick) & wide & (b.hu < -600), self.draw(-900, 300, n), b.hu)
        foam = (below > thick) & (below < self.draw(1, 8, n) * self.chance(0.6, n)) & wide & (b.hu < -900)
        b.hu = torch.where(foam, self.draw(-990, -850, n), b.hu)

    # ------------------------------------------------------------------ the scanner

    def _scan(self, b: Batch, alone: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, size = len(b.hu), b.hu.shape[-1]
        hu = b.hu
        mean = hu.mean(1, keepdim=True)
        hu = hu + self.chance(0.25, n) * self.draw(0, 0.8, n) * (mean - hu)  # thick slices
        moved = torch.roll(hu, (int(self.uniform(-1, 2, 1)), int(self.uniform(-2, 3, 1))), (2, 3))
        hu = hu + self.chance(0.1, n) * 0.5 * (moved - hu)
        blurred = _blur(hu)
        hu = hu + self.chance(0.6, n) * self.draw(0, 0.9, n) * (blurred - hu)
        hu = hu + self.chance(0.35, n) * self.draw(0, 1.6, n) * (hu - _blur(hu))
        noise = torch.randn(hu.shape, generator=self.rng)
        coarse = _blur(noise) * 2.6
        noise = noise + self.draw(0, 1, n) * (coarse - noise)
        streaks = torch.randn(n, 3, size, 1, generator=self.rng) * self.chance(0.12, n) * self.draw(0, 1.2, n)
        hu = hu + (noise + streaks) * torch.exp(self.draw(0.7, 4.1, n))
        hu = hu * self.draw(0.97, 1.03, n) + self.draw(-25, 25, n)
        hu = torch.where(self.chance(0.15, n) > 0, hu.clamp(-1000, 400), hu)
        # Where the picture ends: a frame or a circle of zeros, of air, of anything.
        middle = self.uniform(-0.15, 0.15, n, 2)[:, :, None, None]
        x, y = b.column - middle[:, :1], b.row - middle[:, 1:]
        box = (x.abs() > self.draw(0.55, 1.1, n)) | (y.abs() > self.draw(0.5, 1.1, n))
        circle = (x**2 + y**2).sqrt() > self.draw(0.7, 1.2, n)
        ends = torch.where(self.chance(0.5, n) > 0, box, circle).float() * self.chance(0.35, n)
        kind = torch.rand(n, 1, 1, 1, generator=self.rng)
        value = torch.where(kind < 0.4, -1024.0, torch.where(kind < 0.8, 0.0, self.draw(-1024, 400, n)))
        hu = torch.where(ends > 0, value, hu)
        keep = ends == 0
        side, lesion = b.side * keep, b.lesion * keep * (b.side > 0)
        hu, side, lesion = (torch.where(alone > 0, t[:, 1:2].expand_as(t), t) for t in (hu, side, lesion))
        return hu, side.long(), lesion.long()


def _somewhere(chances: Tensor) -> tuple[Tensor, Tensor]:
    """Line and column, each (B, 1, 1, 1), of the highest of (B, H, W) or (B, 1, H, W) random numbers."""
    place, wide = chances.flatten(1).argmax(1), chances.shape[-1]
    y, x = (t.float()[:, None, None, None] for t in (place // wide, place % wide))
    return y, x


def _shallow(air: Tensor) -> Tensor:
    """Turn the share of air in healthy lung into how shallow the breath was: 0 at -930 HU, 1 at -600 HU."""
    return ((0.93 - air) / 0.32).clamp(0, 1)


def between(side: Tensor) -> Tensor:
    """Mark what lies between the lungs, and they, in any of the slices (B, slices, H, W): (B, 1, H, W)."""
    lung = (side > 0).float().amax(1, keepdim=True)
    return lung.cummax(3).values * lung.flip(3).cummax(3).values.flip(3)


def _blur(hu: Tensor) -> Tensor:
    """Smooth every slice with a binomial filter of five pixels: a Gaussian of sd 1 pixel."""
    for axis in (2, 3):
        pad = (0, 0, 2, 2) if axis == 2 else (2, 2, 0, 0)
        wide, size = functional.pad(hu, pad, mode="replicate"), hu.shape[axis]
        parts = [wide.narrow(axis, first, size) for first in range(5)]
        hu = (parts[0] + parts[4] + 4 * (parts[1] + parts[3]) + 6 * parts[2]) / 16
    return hu
