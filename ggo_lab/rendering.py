"""One frame of a scan as pixels: planes, windows, overlays, letters, scale bar; and the curve that runs under it."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.scan import Scan, Window, window

# Plane -> the axis that its slices are counted along, and the letters at the left, right, top and bottom edge
# (Right, Left, Anterior, Posterior, Head, Foot). Axial is seen from the feet, coronal from the front, as radiologists
# do; sagittal from the patient's left.
PLANES: dict[str, tuple[int, str]] = {"axial": (0, "RLAP"), "coronal": (1, "RLHF"), "sagittal": (2, "APHF")}

# Colours that the colour-blind can tell apart (Okabe & Ito 2008) and that stand out from grey. Lungs and lesions keep
# theirs everywhere; other masks take the rest in turn.
_COLOR_OF = {"lungs": "#56B4E9", "lesions": "#F0E442"}
_OTHER_COLORS = ("#CC79A7", "#009E73", "#E69F00", "#0072B2", "#D55E00")

# Heat is drawn from dark red to orange and more opaque the hotter: no yellow, which is the lesions' colour.
HEAT_COLD, HEAT_HOT = (140, 16, 36), (255, 120, 0)

Heat = np.ndarray | Mapping[int, np.ndarray]


def mask_colors(names: list[str]) -> dict[str, str]:
    """Give every mask its colour, as #rrggbb.

    >>> mask_colors(["lesions", "airways"])
    {'lesions': '#F0E442', 'airways': '#CC79A7'}
    """
    others = [name for name in names if name not in _COLOR_OF]
    turn = {name: _OTHER_COLORS[i % len(_OTHER_COLORS)] for i, name in enumerate(others)}
    return {name: _COLOR_OF.get(name) or turn[name] for name in names}


def check_masks(scan: Scan, masks: Mapping[str, np.ndarray] | str | None) -> dict[str, np.ndarray]:
    """Give the masks to draw, by name.

    Args:
        masks: bool (Z, Y, X) by name; "truth" for the lungs and lesions that the scan's truth knows; None for none.
    Raises:
        ChoiceError: a mask of another shape or type, or "truth" where none is known.
    """
    if masks is None:
        return {}
    if isinstance(masks, str):
        check_choice("masks", masks, ["truth"])
        if scan.truth is None:
            raise ChoiceError(
                f"{scan.name}: masks='truth' needs a scan whose truth is known, such as a phantom; "
                "give masks={'lungs': segment_lungs(scan)} instead.",
                masks,
            )
        return {"lungs": scan.truth.lungs, "lesions": scan.truth.lesions}
    for name, mask in masks.items():
        if name == "heat":
            raise ChoiceError("A mask cannot be named 'heat': that is the heat map's name; choose another.", name)
        if mask.shape != scan.shape or mask.dtype != bool:
            raise ChoiceError(
                f"Mask {name!r} is {mask.dtype} {mask.shape}; the scan {scan.name} needs bool {scan.shape}. "
                "Of a label map make one with `labels == 1`.",
                name,
            )
    return dict(masks)


def check_heat(scan: Scan, heat: Heat | None) -> Heat | None:
    """Give the heat to draw: float (Z, Y, X) in 0..1, or such maps (Y, X) by axial slice; raise ChoiceError if not."""
    if heat is None:
        return None
    maps = heat if isinstance(heat, Mapping) else dict(enumerate(heat)) if len(heat) == scan.shape[0] else {-1: heat}
    for z, values in maps.items():
        if not 0 <= z < scan.shape[0] or values.shape != scan.shape[1:]:
            raise ChoiceError(
                f"heat has a map {values.shape} for slice {z}; the scan {scan.name} needs an array {scan.shape}, or a "
                f"dict from slices 0..{scan.shape[0] - 1} to maps {scan.shape[1:]} (see image_to_scan_grid).",
                z,
            )
    return heat


def lesion_share(masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Lesions / lungs in each axial slice, nan where there is no lung; None without these masks."""
    if not {"lungs", "lesions"} <= masks.keys():
        return None
    lungs, lesions = (
        np.array([np.count_nonzero(part) for part in masks[name]], float) for name in ("lungs", "lesions")
    )
    return np.divide(lesions, lungs, out=np.full(len(lungs), np.nan), where=lungs > 0)


def slice_of(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """View one slice of a volume (Z, Y, X) the way it is looked at: head up in coronal and sagittal planes."""
    if plane == "axial":
        return volume[index]
    return volume[::-1, index] if plane == "coronal" else volume[::-1, :, index]


def heat_slice(heat: Heat, shape: tuple[int, int, int], plane: str, index: int) -> np.ndarray | None:
    """One slice of the heat, as slice_of gives it; None where there is none."""
    if not isinstance(heat, Mapping):
        return slice_of(heat, plane, index)
    if plane == "axial":
        return heat.get(index)
    laid = np.zeros((shape[0], shape[2] if plane == "coronal" else shape[1]), np.float32)
    for z, values in heat.items():
        laid[shape[0] - 1 - z] = values[index] if plane == "coronal" else values[:, index]
    return laid


def slice_spacing(scan: Scan, plane: str) -> tuple[float, float]:
    """Distance between the rows and between the columns of a plane's slices, mm."""
    return tuple(step for axis, step in enumerate(scan.spacing) if axis != PLANES[plane][0])


def picture_shape(scan: Scan, plane: str, size: int) -> tuple[int, int]:
    """Rows and columns of square pixels that show a plane in its true proportions, the longer side being `size`."""
    voxels = [n for axis, n in enumerate(scan.shape) if axis != PLANES[plane][0]]
    height, width = (n * step for n, step in zip(voxels, slice_spacing(scan, plane), strict=True))
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


class FrameRenderer:
    """Draws frames of one scan; holds no copy of the volume.

    Args:
        masks: bool (Z, Y, X) by name.
        heat: 0..1, float (Z, Y, X), or maps (Y, X) by axial slice.
        size: the longer side of a frame, pixels.
    """

    def __init__(self, scan: Scan, masks: Mapping[str, np.ndarray], heat: Heat | None, size: int):
        self.scan, self.masks, self.heat, self.size = scan, masks, heat, size
        self._colors = {name: rgb_of(color) for name, color in mask_colors(list(masks)).items()}
        self._decorations = {}
        for plane in PLANES:
            shape = picture_shape(scan, plane, size)
            pixels_per_mm = shape[1] / (slice_of(scan.hu, plane, 0).shape[1] * slice_spacing(scan, plane)[1])
            self._decorations[plane] = _decoration(shape, PLANES[plane][1], pixels_per_mm)

    def frame(
        self,
        plane: str,
        index: int,
        grey: Window,
        shown: tuple[str, ...] = (),
        overlay: str = "outline",
        opacity: float = 0.5,
    ) -> np.ndarray:
        """Draw one slice.

        Args:
            grey: the window that maps HU to grey.
            shown: names of the masks to draw, and "heat" for the heat.
            overlay: "outline" or "fill".
            opacity: of fills and of the hottest heat, 0..1.
        Returns: uint8 (H, W, 3), picture_shape rows and columns.
        """
        height, width = picture_shape(self.scan, plane, self.size)
        light = Image.fromarray(window(slice_of(self.scan.hu, plane, index), *grey))
        if light.size != (width, height):
            light = light.resize((width, height), Image.Resampling.BILINEAR)
        picture = np.empty((height, width, 3), np.uint8)
        picture[...] = np.asarray(light)[:, :, None]
        if "heat" in shown and self.heat is not None:
            heat = heat_slice(self.heat, self.scan.shape, plane, index)
            if heat is not None:
                _lay_heat(picture, heat, opacity)
        for name, mask in self.masks.items():
            if name in shown:
                inside = _enlarge(slice_of(mask, plane, index), height, width)
                if overlay == "fill":
                    picture[inside] = _mixes(self._colors[name], opacity)[picture[inside], [0, 1, 2]]
                else:
                    picture[_border(inside)] = self._colors[name]
        halo, text = self._decorations[plane]
        picture[halo] //= 4
        picture[text] = 235
        return picture


def rgb_of(color: str) -> tuple[int, int, int]:
    """Red, green and blue of #rrggbb, 0..255."""
    return tuple(bytes.fromhex(color[1:]))


def _enlarge(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask without smoothing, so that the overlay covers exactly its voxels."""
    rows = (np.arange(height) + 0.5) * mask.shape[0] / height
    columns = (np.arange(width) + 0.5) * mask.shape[1] / width
    return mask.take(rows.astype(int), axis=0).take(columns.astype(int), axis=1)


def _border(inside: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask; at the picture's edge it stays open."""
    core = inside.copy()
    core[1:] &= inside[:-1]
    core[:-1] &= inside[1:]
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    return inside & ~core


def _mixes(color: tuple[int, int, int], opacity: float) -> np.ndarray:
    """uint8 (256, 3): each grey and channel after a coat of colour."""
    return ((1 - opacity) * np.arange(256)[:, None] + opacity * np.array(color) + 0.5).astype(np.uint8)


def _lay_heat(picture: np.ndarray, heat: np.ndarray, opacity: float) -> None:
    height, width = picture.shape[:2]
    spread = Image.fromarray(np.asarray(heat, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    level = np.clip(np.asarray(spread), 0, 1)
    warm = level > 0.01
    level = level[warm][:, None]
    color = HEAT_COLD + level * (np.array(HEAT_HOT, np.float32) - HEAT_COLD)
    alpha = opacity * level
    picture[warm] = (picture[warm] * (1 - alpha) + color * alpha).astype(np.uint8)


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
    halo = np.asarray(sheet.filter(ImageFilter.MaxFilter(5))) > 0
    return halo & ~signs, signs


class CurveStrip:
    """A value per axial slice as a strip as wide as the frame, with a line at the current slice.

    Args:
        values: float (Z,), nan where there is none.
        width, height: pixels.
        marks: slices to mark with a small triangle, such as those that a network sees.
    """

    def __init__(self, values: np.ndarray, width: int, height: int = 44, marks: tuple[int, ...] = ()):
        self.values = np.asarray(values, float)
        self._margin = 8  # where the slider's rail begins and ends
        finite = np.nan_to_num(self.values)
        top = max(finite.max(), 1e-9)
        sharp = 2  # drawn twice as large and shrunk, for smooth edges
        sheet = Image.new("RGB", (width * sharp, height * sharp), (17, 17, 17))
        draw = ImageDraw.Draw(sheet)
        xs = self._columns(np.arange(len(finite)), width)
        floor = height - 3
        line = [(x * sharp, (floor - (height - 12) * max(v, 0) / top) * sharp) for x, v in zip(xs, finite, strict=True)]
        area = [(line[0][0], floor * sharp), *line, (line[-1][0], floor * sharp)]
        draw.polygon(area, fill=(84, 80, 36))
        draw.line(line, fill=rgb_of(_COLOR_OF["lesions"]), width=3)
        for x in self._columns(np.array(marks, int), width):
            draw.polygon([((x - 4) * sharp, 0), ((x + 4) * sharp, 0), (x * sharp, 7 * sharp)], fill=(235, 235, 235))
        self._base = np.asarray(sheet.resize((width, height), Image.Resampling.BOX))

    def _columns(self, slices: np.ndarray, width: int) -> np.ndarray:
        return self._margin + slices * (width - 1 - 2 * self._margin) / max(1, len(self.values) - 1)

    def draw(self, index: int) -> np.ndarray:
        """uint8 (height, width, 3) with the line at slice `index`."""
        strip = self._base.copy()
        x = round(float(self._columns(np.array(index), strip.shape[1])))
        strip[:, x : x + 2] = 255
        return strip


def encode(picture: np.ndarray, form: str = "JPEG") -> bytes:
    """Encode uint8 (H, W, 3) as a file: "JPEG" (fast and small, for the screen) or "PNG" (exact)."""
    file = BytesIO()
    # Full colour resolution keeps thin outlines crisp; level 1 of PNG is three times faster than the default.
    options = {"quality": 90, "subsampling": 0} if form == "JPEG" else {"compress_level": 1}
    Image.fromarray(picture).save(file, form, **options)
    return file.getvalue()
