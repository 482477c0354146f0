"""What every format hands over, raw and unread, and the one way from there to HU on canonical axes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.orientations import apply_orientation
from scipy import ndimage

from ggo_lab.errors import ScanError, printable
from ggo_lab.readers.grid import grid_of
from ggo_lab.readers.voxels import Planes, as_hu, as_labels
from ggo_lab.scan import PADDING_BELOW_HU, PADDING_HU, Scan, Window, check_hu, window

_MOST_VOXELS = 1_300_000_000  # 2.6 GB as int16, five times a CT of 1,000 slices of 512 x 512
_DEFLATE_LIMIT = 1032  # zlib shrinks nothing further than 1032 : 1 (zlib's technical details, zlib.net)
_LIKELY_SPACING = (0.1, 25.0)  # mm
_HIGHEST_MEASURED_HU = 3071  # with 12 bits
# mm: the narrowest picture that is likely to be of a chest, and the sides of an adult's body, arms included.
_NARROWEST_PICTURE, _LIKELY_WIDTH, _LIKELY_DEPTH = 120.0, (180.0, 700.0), (90.0, 500.0)
_LEAST_PIXELS = 64  # of a picture whose size can be judged
_BODY_HU = -500  # between lung and soft tissue


@dataclass(frozen=True, eq=False)
class Stored:
    """A volume as a file holds it: its headers are read and checked, its voxels are not.

    Attributes:
        shape: (K, J, I), the file's fastest axis last.
        steps: (3, 3); columns 0, 1, 2 are the ways in mm, towards the patient's left, back and head, of one voxel
            along I, J, K.
        planes: gives the raw values of the planes that are asked for.
        slope, intercept: raw * slope + intercept is HU, or the label; of all planes, or of each one.
        padding: lowest and highest raw value of what is declared as padding, of each plane, or None.
        is_hu: False for grey, whose HU are an estimate.
        notes: what the reader assumed, chose or repaired, one sentence each; it grows while voxels are read.
        names: of the planes' files, where each plane has one.
    """

    shape: tuple[int, int, int]
    steps: np.ndarray
    planes: Planes
    slope: float | Sequence[float] = 1.0
    intercept: float | Sequence[float] = 0.0
    padding: Sequence[tuple[float, float] | None] = ()
    is_hu: bool = True
    notes: list[str] = field(default_factory=list)
    names: Sequence[str] = ()


class OpenedScan:
    """A scan whose headers are read and checked, and whose slices are read when they are asked for.

    `Recipe.cut` takes it in place of a Scan, and then no more is read than the image shows.

    Attributes:
        shape: number of voxels (Z, Y, X), on canonical axes as in a Scan.
        spacing: distance between voxel centres (z, y, x), mm.
        source: where it is.
    """

    def __init__(self, stored: Stored, path: Path, spacing: tuple[float, float, float] | None = None):
        """Take what a format opened; `spacing` stands in place of the file's."""
        self.source = path
        self._stored = stored
        self._grid = grid_of(stored.shape, stored.steps, path)
        self.shape = self._grid.shape
        # That there are three is for Scan to check.
        self.spacing = (
            self._grid.spacing if spacing is None else cast(tuple[float, float, float], tuple(map(float, spacing)))
        )
        self._notes = list(self._grid.notes)
        if spacing is not None:
            self._notes.append(
                f"The spacing is {mm(spacing)} (z, y, x) as given, in place of {mm(self._grid.spacing)}."
            )
        elif not all(_LIKELY_SPACING[0] <= step <= _LIKELY_SPACING[1] for step in self.spacing):
            self._notes.append(f"The spacing {mm(self.spacing)} (z, y, x) is unlikely for a chest CT; check it.")

    def read(self, slices: Sequence[int]) -> np.ndarray:
        """Return axial slices, int16 HU (n, Y, X), reading nothing else where the file allows that.

        Args:
            slices: indices into axis 0, in any order.

        Raises:
            ScanError: a slice that is damaged, or slices that are not HU by themselves. The whole scan may still be
                sound: damaged slices are left out of it, and what tells HU may lie elsewhere.
        """
        with told_in_one_sentence(self.source):
            alone = self._grid.slices_are_planes
            read = sorted(set(slices)) if alone else range(self.shape[0])
            hu, damaged = self._hu(read)
            self._check_whole(damaged, len(read))
            return np.require(hu[np.searchsorted(read, slices)], requirements=["C", "W"])

    def grey(self, slices: Sequence[int], shown: Window) -> list[np.ndarray]:
        """Return axial slices through a window, uint8 (Y, X) each; see `read`."""
        stored = self._stored
        if stored.is_hu or not stored.names:  # what is no HU and no folder of pictures may hold any values
            return [window(hu, *shown) for hu in self.read(slices)]
        # Pictures lie upright, and hold 256 values: what becomes of each is known without a picture of HU in between.
        slope, intercept = (float(np.broadcast_to(v, 1)[0]) for v in (stored.slope, stored.intercept))
        table = window(as_hu(np.arange(256, dtype=np.uint8), self.source, slope, intercept), *shown)
        with told_in_one_sentence(self.source):
            read = sorted(set(slices))
            raw = dict(zip(read, stored.planes(read), strict=True))
        self._check_whole([k for k, plane in raw.items() if plane is None], len(read))
        planes = {k: plane for k, plane in raw.items() if plane is not None}
        if min(plane.min() for plane in planes.values()) == max(plane.max() for plane in planes.values()):
            raise self._nothing_to_see()
        if not np.array_equal(table, np.arange(256)):
            shades = table.tobytes()
            planes = {
                k: np.frombuffer(p.tobytes().translate(shades), np.uint8).reshape(p.shape) for k, p in planes.items()
            }
        return [planes[z] for z in slices]

    def _check_whole(self, damaged: list[int], among: int) -> None:
        if damaged:
            raise ScanError(f"{self.source}: {self._damage_in_words(damaged, among)}; copy them again.", self.source)

    def _nothing_to_see(self) -> ScanError:
        return ScanError(
            f"{self.source}: every pixel is the same grey, so there is nothing to see; export the pictures again.",
            self.source,
        )

    def whole(self) -> Scan:
        """Read the whole scan.

        Returns:
            A Scan without the slices that are damaged, which its notes name.

        Raises:
            ScanError: what cannot be read, or is not HU.
        """
        with told_in_one_sentence(self.source):
            hu, damaged = self._hu(range(self.shape[0]))
        damage = [f"{self._damage_in_words(damaged, self.shape[0])}, and left out."] if damaged else []
        notes = [*self._stored.notes, *self._notes, *damage]
        scan = Scan(hu, self.spacing, scan_name(self.source), self._stored.is_hu, None, tuple(notes), self.source)
        return replace(scan, notes=(*notes, *_implausible(scan))) if scan.is_hu else scan

    def _hu(self, slices: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """HU on canonical axes of these slices, increasing ones, or of all; and which planes are damaged."""
        stored, path = self._stored, self.source
        alone = self._grid.slices_are_planes
        wanted = sorted(self._grid.plane_of(z) for z in slices) if alone else range(stored.shape[0])
        hu, damaged = _hu_of(stored, wanted, path)
        if 2 * len(damaged) > len(wanted):  # half a chest must not pass for a whole one
            raise ScanError(f"{path}: {self._damage_in_words(damaged, len(wanted))}; copy them again.", path)
        hu = np.require(apply_orientation(hu.T, self._grid.orientation).T, requirements=["C", "W"])
        if stored.is_hu:
            check_hu(hu, path)
            for plane in hu:  # a mask of the whole scan would take half its memory
                plane[plane < PADDING_BELOW_HU] = PADDING_HU
        elif hu.min() == hu.max():
            raise self._nothing_to_see()
        return hu, damaged

    def _damage_in_words(self, damaged: list[int], among: int) -> str:
        names = [self._stored.names[k] for k in damaged]
        return (
            f"{len(names)} of {among} slices cannot be decoded, damaged or of an unknown compression: {listed(names)}"
        )


def read_as_labels(stored: Stored, path: Path) -> np.ndarray:
    """Read the integer labels (Z, Y, X) of what is stored, on canonical axes."""
    labels: np.ndarray | None = None
    slopes, intercepts = (np.broadcast_to(v, stored.shape[0]) for v in (stored.slope, stored.intercept))
    for k, raw in enumerate(stored.planes(range(stored.shape[0]))):
        assert raw is not None  # only formats with a file for each slice leave any out, and they hold no labels
        plane = as_labels(raw, path, float(slopes[k]), float(intercepts[k]))
        labels = np.empty(stored.shape, plane.dtype) if labels is None else labels
        labels[k] = plane
    assert labels is not None  # check_size refused a volume without voxels
    grid = grid_of(stored.shape, stored.steps, path)
    return np.require(apply_orientation(labels.T, grid.orientation).T, requirements=["C", "W"])


def check_size(shape: Sequence[int], bytes_per_voxel: int, stored_bytes: int, packed: bool, path: Path) -> None:
    """Refuse, before anything is allocated, a header that claims what its file cannot hold.

    Args:
        shape: as the header claims it, any order of axes.
        bytes_per_voxel: in the file.
        stored_bytes: what the file holds for the voxels.
        packed: whether they are compressed there.
        path: of the file, for messages.
    """
    claimed = " x ".join(str(n) for n in shape)
    if min(shape) < 1:
        raise ScanError(f"{path}: the header claims {claimed} voxels; the file is damaged, copy it again.", path)
    voxels = 1
    for n in shape:  # in Python's integers, which do not overflow
        voxels *= int(n)
    if voxels > _MOST_VOXELS:
        raise ScanError(
            f"{path}: the header claims {claimed} voxels, more than any CT has; the file is damaged, copy it again.",
            path,
        )
    if voxels * bytes_per_voxel > stored_bytes * (_DEFLATE_LIMIT if packed else 1):
        raise ScanError(
            f"{path}: the header claims {claimed} voxels of {bytes_per_voxel} bytes, and only {stored_bytes} bytes "
            "are there; the file is truncated or damaged, copy it again.",
            path,
        )


def size_in_3d(size: Sequence[int], path: Path) -> tuple[int, ...]:
    """Give a header's size, 2-D or 3-D, without further dimensions of 1; ScanError for other numbers of dimensions."""
    size = tuple(int(n) for n in size)
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if not 2 <= len(size) <= 3:
        raise ScanError(
            f"{path}: the header claims {len(size)} dimensions ({' x '.join(map(str, size))}), and a scan has 3; save "
            "the one volume you mean to its own file.",
            path,
        )
    return size


def scan_name(path: Path) -> str:
    """Give the file's or folder's name without the suffix of a format, as text that can be printed."""
    from ggo_lab.readers import FORMATS  # that list is made of the formats, which build on this module

    name = printable(path.absolute().name or path.resolve().name)
    for suffix in sorted((s for kind in FORMATS for s in kind.suffixes), key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def listed(names: Sequence[str]) -> str:
    """Name the first three, as text that can be printed."""
    return ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


@contextmanager
def told_in_one_sentence(path: Path) -> Iterator[None]:
    """Turn what the system refuses while reading into a ScanError."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError as error:
        raise ScanError(
            f"{path}: does not fit into this machine's memory; close other programs, or crop the scan.", path
        ) from error


def unreadable(path: Path, error: OSError) -> ScanError:
    """Tell of a path what the system said."""
    reason = error.strerror or str(error)
    return ScanError(f"{path}: cannot be opened ({reason}); check that you may read it and that it is whole.", path)


def _hu_of(stored: Stored, wanted: Sequence[int], path: Path) -> tuple[np.ndarray, list[int]]:
    """Read HU of the wanted planes that are whole, with padding at PADDING_HU, and say which others there are."""
    hu = np.empty((len(wanted), *stored.shape[1:]), np.int16)
    slopes, intercepts = (np.broadcast_to(v, stored.shape[0]).tolist() for v in (stored.slope, stored.intercept))
    damaged: list[int] = []
    for n, (k, raw) in enumerate(zip(wanted, stored.planes(wanted), strict=True)):
        if raw is None:
            damaged.append(k)
            continue
        plane = hu[n - len(damaged)]
        plane[...] = as_hu(raw, path, slopes[k], intercepts[k])
        if stored.padding and (limits := stored.padding[k]) is not None:
            plane[_is_padding(raw, limits, slopes[k], intercepts[k])] = PADDING_HU
    return hu[: len(wanted) - len(damaged)], damaged


def _is_padding(raw: np.ndarray, limits: tuple[float, float], slope: float, intercept: float) -> np.ndarray:
    """Bool (J, I): what is declared as padding and can be nothing else.

    Scanners also clip noisy air, or metal, to the padding's value, where that could have been measured. Then only those
    parts count that reach the picture's border.
    """
    mask = (raw >= limits[0]) & (raw <= limits[1])
    hu = [limit * slope + intercept for limit in limits]
    if max(hu) < PADDING_BELOW_HU or min(hu) > _HIGHEST_MEASURED_HU:
        return mask
    parts, _ = ndimage.label(mask)
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, border[border > 0])


def _implausible(scan: Scan) -> list[str]:
    """Note where the sizes cannot be those of an adult's chest, judged by the middle slice."""
    _, y, x = scan.spacing
    rows, columns = scan.shape[1:]
    if min(rows, columns) < _LEAST_PIXELS:
        return []
    if max(rows * y, columns * x) < _NARROWEST_PICTURE:
        return [
            f"The slices are {columns * x:.0f} x {rows * y:.0f} mm small: a part of a chest, or the spacing is wrong."
        ]
    parts, count = ndimage.label(scan.hu[scan.shape[0] // 2] > _BODY_HU)
    if not count:
        return []
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    unlikely = []
    for name, axis, step, (least, most) in (("wide", 0, x, _LIKELY_WIDTH), ("deep", 1, y, _LIKELY_DEPTH)):
        extent = np.flatnonzero(body.any(axis=axis))
        whole = extent[0] > 0 and extent[-1] < body.shape[1 - axis] - 1
        size = (extent[-1] + 1 - extent[0]) * step
        if size > most or (whole and size < least):
            unlikely.append(f"{size:.0f} mm {name}")
    if not unlikely:
        return []
    return [f"The body in the middle slice is {' and '.join(unlikely)}, which no adult's chest is: check the spacing."]


def mm(spacing: Iterable[float]) -> str:
    """Sizes in words."""
    return " x ".join(f"{step:g}" for step in spacing) + " mm"
