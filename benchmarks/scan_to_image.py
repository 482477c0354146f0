"""From a scan on disk to the network's image, beside the peers, on the same files.

    python benchmarks/scan_to_image.py [ROUNDS]

A phantom of 120 slices of 512 x 512 as .nii.gz, as a DICOM series and as a folder of JPG; the image is the paper's:
the three middle slices, [-1000, 400] HU in 8 bits, 224 x 224. Every contestant is a process of its own and runs in turn
with the others; medians of the rounds after one that is not counted. Each peer is used as its documentation shows, and
may cut out the three slices as early as its interface allows. Memory is what a process grew by at its peak, in a round.
Pictures differ by the filter that shrinks them: ours and the reference's is bilinear and antialiased.
Needs the extra `bench`. Linux only.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SHAPE, SIZE, BLACK, WHITE = (120, 512, 512), 224, -1000.0, 400.0
MIDDLE = slice(58, 61)  # as Recipe(where="middle") chooses of 120
RESULTS = Path(__file__).parent / "results" / "scan_to_image.json"


def ours(path: str) -> np.ndarray:
    import ggo_lab as gl

    return gl.scan_to_image(gl.read_scan(path), gl.Recipe(where="middle"))


def monai_nifti(path: str) -> np.ndarray:
    return _monai(path, "NibabelReader")


def monai_dicom(path: str) -> np.ndarray:
    return _monai(path, "PydicomReader")


def _monai(path: str, reader: str) -> np.ndarray:
    """Load, orient, crop to three slices, scale, resize with "area", its way to shrink without aliasing."""
    from monai import transforms

    chain = transforms.Compose(
        [
            transforms.LoadImage(reader=reader, image_only=True, ensure_channel_first=True),
            transforms.Orientation(axcodes="SPL"),  # feet to head, front to back, right to left
            transforms.SpatialCrop(roi_slices=[MIDDLE, slice(None), slice(None)]),
            transforms.ScaleIntensityRange(BLACK, WHITE, 0, 255, clip=True),
            transforms.Resize((3, SIZE, SIZE), mode="area"),
        ]
    )
    return _rounded(chain(path)[0].numpy())


def torchio_any(path: str) -> np.ndarray:
    """Read, orient, crop to three slices, clamp, rescale, resize: its resize takes points, not areas."""
    import torchio as tio

    image = tio.ToCanonical()(tio.ScalarImage(path))  # x to the right, y to the front, z to the head
    image = tio.Crop((0, 0, 0, 0, MIDDLE.start, SHAPE[0] - MIDDLE.stop))(image)
    image = tio.Compose([tio.Clamp(BLACK, WHITE), tio.RescaleIntensity((0, 255), in_min_max=(BLACK, WHITE))])(image)
    image = tio.Resize((SIZE, SIZE, 3))(image)
    return _rounded(image.data[0].numpy().transpose(2, 1, 0)[:, ::-1, ::-1])


def habit_nifti(path: str) -> np.ndarray:
    """What many scripts do: the whole volume as float64, then spline interpolation."""
    import nibabel
    from scipy import ndimage

    image = nibabel.as_closest_canonical(nibabel.load(path))
    hu = image.get_fdata().transpose(2, 1, 0)[:, ::-1, ::-1]
    return _zoomed(hu[MIDDLE], ndimage)


def habit_dicom(path: str) -> np.ndarray:
    import pydicom
    from scipy import ndimage

    files = sorted((pydicom.dcmread(file) for file in Path(path).iterdir()), key=lambda f: f.ImagePositionPatient[2])
    hu = np.stack([file.pixel_array * file.RescaleSlope + file.RescaleIntercept for file in files])
    return _zoomed(hu[MIDDLE], ndimage)


def habit_jpg(path: str) -> np.ndarray:
    from PIL import Image
    from scipy import ndimage

    files = sorted(Path(path).iterdir(), key=lambda file: int(file.stem), reverse=True)  # the first is the head's
    grey = np.stack([np.asarray(Image.open(file).convert("L"), float) for file in files])
    return _rounded(ndimage.zoom(grey[MIDDLE], (1, SIZE / SHAPE[1], SIZE / SHAPE[2]), order=1))


def _zoomed(hu: np.ndarray, ndimage) -> np.ndarray:
    grey = (np.clip(hu, BLACK, WHITE) - BLACK) / (WHITE - BLACK) * 255
    return _rounded(ndimage.zoom(grey, (1, SIZE / SHAPE[1], SIZE / SHAPE[2]), order=1))


def floor_nifti(path: str) -> None:
    """Decompressing alone."""
    from isal import igzip

    with igzip.open(path) as file:
        file.read()


def floor_files(path: str) -> None:
    """Reading the bytes alone."""
    for file in Path(path).iterdir():
        file.read_bytes()


def _rounded(grey: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(grey, np.float64)).clip(0, 255).astype(np.uint8)


CONTESTANTS: dict[str, dict[str, Callable]] = {
    "nii.gz": {
        "floor": floor_nifti, "ours": ours, "MONAI": monai_nifti, "TorchIO": torchio_any, "habit": habit_nifti,
    },
    "DICOM": {"floor": floor_files, "ours": ours, "MONAI": monai_dicom, "TorchIO": torchio_any, "habit": habit_dicom},
    "JPG": {"floor": floor_files, "ours": ours, "habit": habit_jpg},
}  # fmt: skip
BARS = {"MONAI": "6 times slower", "TorchIO": "3 times slower", "floor": "ours at most 1.3 times"}


def work(kind: str, name: str, path: str) -> None:
    """Run one contestant each time a line comes in, and say what it took."""
    run = CONTESTANTS[kind][name]
    if name in ("MONAI", "TorchIO", "ours"):
        __import__({"MONAI": "monai.transforms", "TorchIO": "torchio", "ours": "ggo_lab.readers"}[name])
    for _ in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        before = status("VmRSS")
        wall, processor = time.perf_counter(), time.process_time()
        picture = run(path)
        took = time.perf_counter() - wall, time.process_time() - processor
        if picture is not None:
            np.save(f"{path}.{name}.npy", picture)
        print(json.dumps([*took, status("VmHWM") - before]), flush=True)


def status(field: str) -> float:
    """What the system says of this process, MB."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def reference(hu: np.ndarray) -> np.ndarray:
    """What the window leaves, shrunk by torch in float64 with an antialiased bilinear filter."""
    import torch

    grey = (np.clip(hu[MIDDLE].astype(np.float64), BLACK, WHITE) - BLACK) / (WHITE - BLACK) * 255
    planes = torch.from_numpy(grey)[None]
    return torch.nn.functional.interpolate(planes, (SIZE, SIZE), mode="bilinear", antialias=True)[0].numpy()


def write_files(folder: Path) -> tuple[dict[str, str], np.ndarray]:
    """The phantom in three forms; give their paths and the HU."""
    from PIL import Image

    import ggo_lab as gl

    sys.path.insert(0, str(ROOT / "tests"))
    from scan_files import write_dicom

    scan = gl.make_phantom(grade=2, seed=1, shape=SHAPE)
    paths = {"nii.gz": folder / "scan.nii.gz", "DICOM": folder / "series", "JPG": folder / "slices"}
    gl.write_nifti(scan, paths["nii.gz"])
    write_dicom(paths["DICOM"], scan.hu)
    paths["JPG"].mkdir()
    for place, plane in enumerate(gl.window(scan.hu[::-1], *gl.WINDOWS["paper"])):
        Image.fromarray(plane).save(paths["JPG"] / f"{place}.jpg", quality=95)
    return {kind: str(path) for kind, path in paths.items()}, scan.hu


def main(rounds: int) -> None:
    from machine import facts

    print(facts(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths, hu = write_files(Path(folder))
        wanted = reference(hu)
        for kind, contestants in CONTESTANTS.items():
            workers = {
                name: subprocess.Popen(
                    [sys.executable, __file__, "--work", kind, name, paths[kind]],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
                )
                for name in contestants
            }  # fmt: skip
            said = {name: [] for name in contestants}
            for _ in range(rounds + 1):
                for name, worker in workers.items():
                    worker.stdin.write("\n")
                    worker.stdin.flush()
                    said[name].append(json.loads(worker.stdout.readline()))
            for name, worker in workers.items():
                worker.stdin.close()
                worker.wait()
                wall, processor, memory = (statistics.median(column) for column in zip(*said[name][1:], strict=True))
                made = Path(f"{paths[kind]}.{name}.npy")
                off = np.abs(np.load(made) - wanted) if made.exists() else np.array(np.nan)
                rows.append(
                    {"file": kind, "who": name, "wall_s": wall, "processor_s": processor, "memory_mb": memory,
                     "off_max": off.max(), "off_mean": off.mean()}
                )  # fmt: skip
            show([row for row in rows if row["file"] == kind])
    RESULTS.parent.mkdir(exist_ok=True)
    rounded = [{key: v if isinstance(v, str) else round(float(v), 3) for key, v in row.items()} for row in rows]
    RESULTS.write_text(json.dumps({"machine": facts(), "rows": rounded}, indent=1) + "\n")


def show(rows: list[dict]) -> None:
    """Print a kind of file as a table, times beside ours."""
    mine = next(row for row in rows if row["who"] == "ours")
    print(f"\n| {rows[0]['file']} | s | processor s | times ours | memory MB | off by grey levels: mean, most | bar |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        off = "" if row["who"] == "floor" else f"{row['off_mean']:.2f}, {row['off_max']:.1f}"
        print(
            f"| {row['who']} | {row['wall_s']:.3f} | {row['processor_s']:.3f} | {row['wall_s'] / mine['wall_s']:.1f} | "
            f"{row['memory_mb']:.0f} | {off} | {BARS.get(row['who'], '')} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
