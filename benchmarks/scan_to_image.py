"""Time the way from a scan on disk to the network's image, beside MONAI, TorchIO and what people write by hand.

    python benchmarks/scan_to_image.py [--quick]     # --quick: the NIfTI file only

One phantom of 120 x 512 x 512, as .nii.gz, as a DICOM series and as a folder of JPG slices. Every contestant must give
the paper's image: the three middle slices, windowed to [-1000, 400] HU, uint8, 224 x 224. The table says how far each
is from a reference, the exact grey of these slices shrunk by torch's antialiased bilinear filter in 64 bits: 0 to 1
grey levels is the same picture, and what is more is the contestant's own interpolation, for all choose, turn and window
alike. MONAI and Pillow average over areas instead, scipy and TorchIO take points.

No cache takes part: MONAI's CacheDataset and PersistentDataset keep finished images, as `gl.prepare` does, and what is
timed is the making. Nor do workers: each contestant is one process, and all could be given more. MONAI and TorchIO read
with their own readers, which read whole files; from there on they, too, work on three slices only. Ours reads every
header, and decodes three slices. Linux only; needs the extra `bench`.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from results import Results
from turns import middle, race, repeat

import ggo_lab as gl

SHAPE = (120, 512, 512)
RECIPE = gl.Recipe(pick="middle")  # the paper's
CLIP = RECIPE.window.black, RECIPE.window.white
CHOSEN = slice(58, 61)  # the slices that it chooses, from the feet
ROUNDS = 9
AHEAD, OF_WHOM = 1.0, ("MONAI", "TorchIO", "nibabel")  # times faster than these, at least
# Of what people write who want three slices only: times its processor time, and its memory, at most.
FEW = {"Pillow, three slices": (1.5, None), "pydicom headers first, scipy zoom": (2.0, 1.5)}
PICTURE_BAR = 1  # grey levels
Image = Callable[[], np.ndarray]


def ours(path: Path, recipe: gl.Recipe = RECIPE) -> Image:
    from ggo_lab.readers import open_scan

    return lambda: recipe.cut(open_scan(path)).image()


def monai(path: Path, whole: bool = False) -> Image:
    """Its chain for CT; `whole` windows and turns the whole volume, as its tutorials do, and then chooses slices."""
    from monai.transforms import (
        Compose,
        EnsureChannelFirst,
        EnsureType,
        Lambda,
        LoadImage,
        Orientation,
        Resize,
        ScaleIntensityRange,
    )

    pictures = path.is_dir() and any(path.glob("*.jpg"))
    if pictures:  # three files, stacked as channels
        load = [LoadImage(dtype=np.uint8), Lambda(lambda volume: volume.as_tensor().permute(0, 2, 1).float())]
        chain = Compose([*load, _area(Resize)], map_items=False)  # the list is one image
        return lambda: _bytes(chain(_three_pictures(path)))
    # int16 instead of its default float32 is less memory and less time; DICOM only through pydicom, ITK is not here.
    reader = "PydicomReader" if path.is_dir() else "NibabelReader"
    load = [LoadImage(reader, dtype=np.float32 if whole else np.int16), EnsureChannelFirst(), Orientation("LPS")]
    window = [ScaleIntensityRange(*CLIP, 0, 255, clip=True)]
    choose = [
        Lambda(lambda volume: volume[0, :, :, CHOSEN].permute(2, 1, 0)),
        EnsureType(dtype=np.float32, track_meta=False),
    ]
    chain = Compose([*load, *(window + choose if whole else choose + window), _area(Resize)])
    return lambda: _bytes(chain(path))


def torchio(path: Path) -> Image:
    import torchio as tio

    # Its Resize has no area mode: linear, as is its default.
    chain = tio.Compose([tio.Clamp(*CLIP), tio.RescaleIntensity((0, 255), in_min_max=CLIP)])
    flat = tio.Resize((RECIPE.size, RECIPE.size, 1)), tio.Resize((RECIPE.size, RECIPE.size, 3))
    turn = tio.ToOrientation("LPS")
    if path.is_dir() and any(path.glob("*.jpg")):  # three files, stacked as channels
        return lambda: _bytes(flat[0](tio.ScalarImage(_three_pictures(path))).data[..., 0].permute(0, 2, 1))
    return lambda: _bytes(flat[1](chain(turn(tio.ScalarImage(path)[:, :, CHOSEN]))).data[0].permute(2, 1, 0))


def nibabel_zoom(path: Path, sliced: bool) -> Image:
    """The habit, get_fdata; `sliced`: what nibabel offers beside it, reading as far as the last slice wanted."""
    import nibabel
    from scipy.ndimage import zoom

    def run() -> np.ndarray:
        file = nibabel.load(path)
        volume = file.dataobj[:, :, CHOSEN] if sliced else file.get_fdata()[:, :, CHOSEN]
        return _zoomed(volume.transpose(2, 1, 0), zoom)

    return run


def pydicom_zoom(path: Path, headers: bool) -> Image:
    """The habit, dcmread of every file; `headers`: the pixels of the three slices only, once the headers say which."""
    from pydicom import dcmread
    from scipy.ndimage import zoom

    def run() -> np.ndarray:
        files = [dcmread(file, stop_before_pixels=headers) for file in path.iterdir()]
        chosen = sorted(files, key=lambda file: float(file.ImagePositionPatient[2]))[CHOSEN]
        chosen = [dcmread(file.filename) for file in chosen] if headers else chosen
        slices = [file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept) for file in chosen]
        return _zoomed(np.stack(slices), zoom)

    return run


def pillow(path: Path, three: bool) -> Image:
    """Opens every picture and then chooses, or only three of them."""
    from PIL import Image

    def run() -> np.ndarray:
        files = _three_pictures(path) if three else _pictures(path)[::-1]
        slices = [np.asarray(Image.open(file)) for file in files]
        chosen = slices if three else np.stack(slices)[CHOSEN]
        return np.stack([Image.fromarray(slice_).resize((RECIPE.size,) * 2, Image.Resampling.BOX) for slice_ in chosen])

    return run


def floor(path: Path) -> Callable[[], None]:
    """Only the bytes: unpacked, or read where they are not packed, and nothing made of them."""
    from isal import igzip
    from PIL import Image

    buffer = bytearray(1 << 20)

    def read(file) -> None:
        while file.readinto(buffer):
            pass

    def run() -> None:
        for part in path.iterdir() if path.is_dir() else [path]:
            if part.suffix == ".jpg":
                Image.open(part).load()
            else:
                with part.open("rb") if path.is_dir() else igzip.open(part) as file:
                    read(file)

    return run


def _area(resize: type) -> Callable:
    return resize((RECIPE.size, RECIPE.size), mode="area")


def _bytes(image) -> np.ndarray:
    return image.round().byte().numpy()


def _zoomed(slices: np.ndarray, zoom: Callable) -> np.ndarray:
    black, white = CLIP
    grey = (np.clip(slices, black, white) - black) * (255 / (white - black))
    return np.stack([zoom(one, RECIPE.size / one.shape[0], order=1) for one in grey]).round().astype(np.uint8)


def _pictures(path: Path) -> list[Path]:
    return sorted(path.iterdir(), key=lambda file: [int(number) for number in re.findall(r"\d+", file.stem)])


def _three_pictures(path: Path) -> list[Path]:
    return _pictures(path)[::-1][CHOSEN]  # the first lies at the head


def write_files(folder: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Write the scan in three ways; give each one's path and the grey (3, Y, X), 0 to 255, of the slices chosen."""
    from PIL import Image

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from scan_files import write_dicom

    scan = gl.make_phantom(grade=3, seed=1, shape=SHAPE)
    black, white = CLIP
    grey = (np.clip(scan.hu[CHOSEN].astype(np.float32), black, white) - black) * (255 / (white - black))
    nifti = gl.write_nifti(scan, folder / "scan.nii.gz")
    write_dicom(folder / "dicom", scan.hu)
    (folder / "jpg").mkdir()
    for number, hu in enumerate(scan.hu[::-1]):
        Image.fromarray(gl.window(hu, *gl.WINDOWS["paper"])).save(folder / "jpg" / f"{number}.jpg", quality=95)
    pictures = np.stack([np.asarray(Image.open(file)) for file in _three_pictures(folder / "jpg")])
    return {
        ".nii.gz": (nifti, grey),
        "DICOM series": (folder / "dicom", grey),
        "JPG folder": (folder / "jpg", pictures.astype(np.float32)),
    }


def contestants(kind: str, path: Path) -> dict[str, Callable]:
    """Who takes part; those without "ours" and "floor" in their names are peers."""
    made = {"ours": repeat(ours, path), "floor: the bytes alone": repeat(floor, path)}
    if kind == ".nii.gz":
        made["ours, cropped to the lungs"] = repeat(ours, path, gl.Recipe(pick="middle", crop="lungs"))
        made["MONAI, whole volume"] = repeat(monai, path, True)
        made["nibabel get_fdata, scipy zoom"] = repeat(nibabel_zoom, path, False)
        made["nibabel dataobj, scipy zoom"] = repeat(nibabel_zoom, path, True)
    elif kind == "DICOM series":
        made["pydicom, scipy zoom"] = repeat(pydicom_zoom, path, False)
        made["pydicom headers first, scipy zoom"] = repeat(pydicom_zoom, path, True)
    else:
        made["Pillow, all slices"] = repeat(pillow, path, False)
        made["Pillow, three slices"] = repeat(pillow, path, True)
    return {**made, "MONAI, slices first": repeat(monai, path), "TorchIO, slices first": repeat(torchio, path)}


def main(quick: bool) -> None:
    import torch

    found = Results("scan_to_image")
    with tempfile.TemporaryDirectory() as folder:
        for kind, (path, grey) in list(write_files(Path(folder)).items())[: 1 if quick else None]:
            size = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
            title = f"{kind}, {size / 1e6:.0f} MB, of 120 x 512 x 512; medians of {ROUNDS} turns"
            exact = torch.from_numpy(grey.astype(np.float64))[None]
            reference = torch.nn.functional.interpolate(exact, (RECIPE.size,) * 2, mode="bilinear", antialias=True)
            reference = reference[0].round().numpy()
            turns = {name: middle(taken) for name, taken in race(contestants(kind, path), ROUNDS).items()}
            our = turns["ours"]
            head = ["", "s", "processor s", "memory, MB", "times ours, s", "times ours, processor s"]
            found.table(title, [*head, "differs by, grey levels: mean", "most"])
            for name, turn in turns.items():
                differs = [None, None]
                if turn.answer is not None and "cropped" not in name:
                    difference = np.abs(turn.answer - reference)
                    differs = [float(difference.mean()), int(difference.max())]
                times = turn.wall_s / our.wall_s, turn.cpu_s / our.cpu_s
                found.row(name, turn.wall_s, turn.cpu_s, turn.memory_mb, *times, *differs)
            most = float(np.abs(our.answer - reference).max())
            found.bar(f"{kind}: the picture differs from the reference by, grey levels", most, PICTURE_BAR, False)
            judge(found, kind, turns)
    found.write()


def judge(found: Results, kind: str, turns: dict) -> None:
    """Hold the processor times and the memory, which others on the machine disturb least, against the bars."""
    our = turns["ours"]
    for name, turn in turns.items():
        if name in FEW:
            times, memory = FEW[name]
            found.bar(f"{kind}: times {name} (processor)", our.cpu_s / turn.cpu_s, times, False)
            if memory is not None:
                found.bar(f"{kind}: times {name} (memory)", our.memory_mb / turn.memory_mb, memory, False)
        elif name.startswith(OF_WHOM):
            found.bar(f"{kind}: times faster than {name} (processor)", turn.cpu_s / our.cpu_s, AHEAD, True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the NIfTI file only")
    main(parser.parse_args().quick)
