"""One frame of a scan as pixels: window, overlays, letters, scale bar, cross."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ggo_lab.rendering.overlays import HEAT_COLD, HEAT_HOT, Heat, heat_levels, mask_colors, rgb_of
from ggo_lab.rendering.planes import PLANES, View, heat_slice, picture_shape, slice_of, slice_spacing
from ggo_lab.scan import Scan, Window, window

Image.preinit()  # Pillow loads its files' formats with the first picture otherwise, while somebody waits for it


class FrameRenderer:
    """Draws frames of one scan; holds no copy of the volume.

    Args:
        masks: bool (Z, Y, X) by name.
        heat: 0..1, float (Z, Y, X), or maps (Y, X) by axial slice.
        size: the longer side of a frame, pixels.
    """

    def __init__(self, scan: Scan, masks: Mapping[str, np.ndarray], heat: Heat | None, size: int):
        """Draw frames of a scan with these masks and this heat, whose longer side has `size` pixels."""
        self.scan, self.masks, self.heat, self.size = scan, masks, heat, size
        self._colors = {name: rgb_of(color) for name, color in mask_colors(list(masks)).items()}
        self._signs: dict[tuple[str, float], tuple[np.ndarray, np.ndarray]] = {}

    def frame(
        self,
        plane: str,
        index: int,
        grey: Window,
        shown: tuple[str, ...] = (),
        overlay: str = "outline",
        opacity: float = 0.5,
        zoom: float = 1.0,
        centre: tuple[float, float, float] | None = None,
        probe: tuple[int, int, int] | None = None,
    ) -> np.ndarray:
        """Draw one slice.

        Args:
            plane: "axial", "coronal" or "sagittal".
            index: of the slice, along the plane's axis.
            grey: the window that maps HU to grey.
            shown: names of the masks to draw, and "heat" for the heat.
            overlay: "outline" or "fill".
            opacity: of fills and of the hottest heat, 0..1.
            zoom: 1 for the whole slice, see View.
            centre: voxel (z, y, x) in the middle of the part in view.
            probe: voxel (z, y, x) to mark with a cross, where the slice goes through it.

        Returns:
            uint8 (H, W, 3), picture_shape rows and columns.
        """
        height, width = picture_shape(self.scan, plane, self.size)
        view = View(self.scan, plane, zoom, centre)
        light = Image.fromarray(window(slice_of(self.scan.hu, plane, index), *grey))
        if view.zoom > 1 or light.size != (width, height):
            # From four times on single voxels are looked at, which smoothing would hide.
            smoothing = Image.Resampling.BILINEAR if zoom < 4 else Image.Resampling.NEAREST
            light = light.resize((width, height), smoothing, box=view.box)
        picture = light.convert("RGB")
        if "heat" in shown and self.heat is not None:
            heat = heat_slice(self.heat, self.scan.shape, plane, index)
            if heat is not None:
                picture = _lay_heat(picture, heat, opacity, view.box)
        drawn = [
            (self._colors[name], _enlarge(slice_of(mask, plane, index), height, width, view.box))
            for name, mask in self.masks.items()
            if name in shown
        ]
        if overlay == "fill":
            for color, inside in drawn:
                _coat(picture, color, inside, opacity)
        pixels = np.array(picture)
        flat = pixels.reshape(-1, 3)  # numpy assigns many times faster by positions than through a bool mask
        if overlay == "outline":
            for color, inside in drawn:
                flat[np.flatnonzero(_border(inside))] = color
        halo, text = self._letters(plane, (height, width), zoom)
        flat[halo] //= 4
        flat[text] = 235
        if probe is not None and probe[PLANES[plane][0]] == index:
            _draw_cross(pixels, *view.point(probe))
        return pixels

    def _letters(self, plane: str, shape: tuple[int, int], zoom: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the flat picture to darken and to write on; the last ones made are kept."""
        if (plane, zoom) not in self._signs:
            across_mm = self.scan.shape[1 if plane == "sagittal" else 2] * slice_spacing(self.scan, plane)[1]
            halo, text = _decoration(shape, PLANES[plane][1], zoom * shape[1] / across_mm)
            self._signs = {(plane, zoom): (np.flatnonzero(halo), np.flatnonzero(text))}
        return self._signs[plane, zoom]


def _enlarge(mask: np.ndarray, height: int, width: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Resize the part of a mask in a box without smoothing, so that the overlay covers exactly its voxels."""
    if mask.shape == (height, width) and box == (0, 0, width, height):
        return mask
    left, top, right, bottom = box
    rows = top + (np.arange(height) + 0.5) * (bottom - top) / height
    columns = left + (np.arange(width) + 0.5) * (right - left) / width
    return mask.take(rows.astype(int), axis=0).take(columns.astype(int), axis=1)


def _border(inside: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask; at the picture's edge it stays open."""
    core = inside.copy()
    core[1:] &= inside[:-1]
    core[:-1] &= inside[1:]
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    return inside & ~core


def _coat(picture: Image.Image, color: tuple[int, int, int], inside: np.ndarray, opacity: float) -> None:
    """Mix a colour into the picture inside a mask; Pillow is fastest with one bit a pixel and a table of mixes."""
    mixes = (1 - opacity) * np.arange(256) + opacity * np.array(color)[:, None]
    coated = picture.point(np.rint(mixes).astype(int).ravel().tolist())
    bits = np.packbits(inside, axis=1).tobytes()
    picture.paste(coated, mask=Image.frombytes("1", picture.size, bits))


def _lay_heat(
    picture: Image.Image, heat: np.ndarray, opacity: float, box: tuple[float, float, float, float]
) -> Image.Image:
    """Coat a picture with heat, redder and brighter the hotter; what is low leaves it as it is, as in picture.js."""
    levels = Image.fromarray(heat_levels(heat)).resize(picture.size, Image.Resampling.BILINEAR, box=box)
    shades = np.linspace(HEAT_COLD, HEAT_HOT, 256).round().astype(np.uint8)
    color = Image.merge("RGB", [levels.point(shades[:, channel].tolist()) for channel in range(3)])
    return Image.composite(color, picture, levels.point([round(opacity * level * level / 255) for level in range(256)]))


def _draw_cross(pixels: np.ndarray, across: float, down: float) -> None:
    """Four strokes around a point, bright in a dark halo, with a gap that leaves the point itself to be seen."""
    height, width = pixels.shape[:2]
    row, column = int(down * height), int(across * width)
    if not (0 <= row < height and 0 <= column < width):
        return
    gap, reach = 5, 16
    for shade, wider in ((0, 1), (235, 0)):
        for start, stop in ((-reach - wider, wider - gap), (gap - wider, reach + wider)):
            rows, columns = (slice(max(0, at + start), max(0, at + stop)) for at in (row, column))
            pixels[rows, max(0, column - wider) : column + wider + 1] = shade
            pixels[max(0, row - wider) : row + wider + 1, columns] = shade


def _decoration(shape: tuple[int, int], letters: str, pixels_per_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Letters at the edges and a scale bar: the pixels to darken around them, and those of the signs, bool (H, W)."""
    height, width = shape
    sheet = Image.new("L", (width, height))
    if min(shape) >= 96:  # smaller frames would show more signs than scan
        draw = ImageDraw.Draw(sheet)
        draw.fontmode = "1"
        font = ImageFont.load_default(max(13, max(shape) // 28))
        edge = 6
        for letter, place, anchor in zip(
            letters,
            ((edge, height / 2), (width - edge, height / 2), (width / 2, edge), (width / 2, height - edge)),
            ("lm", "rm", "mt", "mb"),
            strict=True,
        ):
            draw.text(place, letter, fill=255, font=font, anchor=anchor)
        length_mm = 100 if 100 * pixels_per_mm < width / 3 else 50 if 50 * pixels_per_mm < width / 3 else 10
        length = round(length_mm * pixels_per_mm)
        bottom, right = height - edge - 4, width - edge - 4
        draw.line([(right - length, bottom), (right, bottom)], fill=255, width=2)
        for end in (right - length, right):
            draw.line([(end, bottom - 5), (end, bottom + 1)], fill=255, width=1)
        draw.text((right - length / 2, bottom - 4), f"{length_mm // 10} cm", fill=255, font=font, anchor="mb")
    signs = np.asarray(sheet) > 0
    return _grown(_grown(signs, 2).T, 2).T & ~signs, signs


def _grown(signs: np.ndarray, by: int) -> np.ndarray:
    """Let what is True grow by so many rows up and down; ten times as fast as Pillow's MaxFilter."""
    grown = signs.copy()
    for rows in range(1, by + 1):
        grown[rows:] |= signs[:-rows]
        grown[:-rows] |= signs[rows:]
    return grown


def encode(picture: np.ndarray, form: str = "JPEG") -> bytes:
    """Encode uint8 (H, W, 3) as a file: "JPEG" (fast and small, for the screen) or "PNG" (exact)."""
    file = BytesIO()
    # Full colour resolution keeps thin outlines crisp; level 1 of PNG is three times faster than the default.
    options = {"quality": 90, "subsampling": 0} if form == "JPEG" else {"compress_level": 1}
    Image.fromarray(picture).save(file, form, **options)
    return file.getvalue()
