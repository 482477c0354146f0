"""Make the phantoms behind the curtain once, and pack the three slices of each that most recipes look at.

    python benchmarks/curtain.py make [--patients 0 2000]   # goes on where it stopped; half a second a patient
    python benchmarks/curtain.py pack                       # writes ggo_lab/curtain/phantoms.npz and made.json

What is made is kept in shards in a folder, for other benchmarks too: of every patient the three slices and, a slice and
a lung, the pixels of lung and lesion; of the first patients all HU.
"""

import argparse
import hashlib
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ggo_lab.curtain.unseen import PHANTOMS, SHIPPED, SHIPPED_RECIPE, every_phantom
from ggo_lab.storage import cache_folder, code_fingerprint

SHARD = 50
WITH_HU = 250  # patients whose whole scan is kept
SIDES = ("right_lung", "left_lung")
QUALITY = 80  # of WebP


def of_patient(number: int) -> dict[str, np.ndarray]:
    """Make one patient: `grey` uint8 (3, Y, X), and int32 (Z, 2) `lungs` and `lesions`; `hu` of the first ones."""
    scan = every_phantom().scan(number)
    sides = [scan.truth.masks[side] & scan.truth.lungs for side in SIDES]
    made = {
        "grey": SHIPPED_RECIPE.cut(scan).image(),
        "lungs": np.stack([side.sum(axis=(1, 2)) for side in sides], axis=1).astype(np.int32),
        "lesions": np.stack([(side & scan.truth.lesions).sum(axis=(1, 2)) for side in sides], axis=1).astype(np.int32),
    }
    if number < WITH_HU:
        made |= {"hu": scan.hu, "spacing": np.array(scan.spacing)}
        made |= {"lungs_mask": np.packbits(scan.truth.lungs), "lesions_mask": np.packbits(scan.truth.lesions)}
    return made


def make(folder: Path, first: int, end: int) -> None:
    """Make patients in shards; a shard that is there is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for shard in range(first // SHARD, -(-end // SHARD)):
        path = folder / f"curtain_{shard:03d}.npz"
        if path.exists():
            continue
        made = [of_patient(number) for number in range(shard * SHARD, (shard + 1) * SHARD)]
        part = path.with_suffix(".part.npz")
        np.savez(part, **{key: np.stack([one[key] for one in made]) for key in made[0]})
        part.rename(path)
        print(f"{path.name}  {time.perf_counter() - start:.0f} s", flush=True)


def kept(folder: Path, *keys: str, end: int = PHANTOMS) -> dict[str, np.ndarray]:
    """Give arrays of the first patients, as many as are there without a gap."""
    shards = []
    for shard in range(-(-end // SHARD)):
        path = folder / f"curtain_{shard:03d}.npz"
        if not path.exists():
            break
        with np.load(path) as stored:
            shards.append({key: stored[key] for key in keys})
    return {key: np.concatenate([shard[key] for shard in shards])[:end] for key in keys}


def pack(folder: Path) -> None:
    """Write the slices of all that are there as WebP pictures, three below each other."""
    grey, files, squares = kept(folder, "grey")["grey"], [], 0.0
    for slices in grey:
        opened = io.BytesIO()
        picture = Image.fromarray(slices.reshape(-1, slices.shape[-1]))
        picture.convert("RGB").save(opened, "webp", quality=QUALITY, method=6)
        files.append(np.frombuffer(opened.getvalue(), np.uint8))
        back = np.asarray(Image.open(opened).convert("L"), float).reshape(slices.shape)
        squares += float(((back - slices) ** 2).mean())
    ends = np.cumsum([len(file) for file in files]).astype(np.int64)
    slices = np.array(SHIPPED_RECIPE.cut(every_phantom().scan(0)).slices)
    np.savez(SHIPPED, ends=ends, webp=np.concatenate(files), slices=slices)
    record = {
        "command": "python benchmarks/curtain.py make; python benchmarks/curtain.py pack",
        "phantoms": len(grey),
        "phantom_code": code_fingerprint("phantom"),
        "webp_quality": QUALITY,
        "grey_error_rms": round((squares / len(grey)) ** 0.5, 2),
        "sha256": hashlib.sha256(SHIPPED.read_bytes()).hexdigest(),
    }
    (SHIPPED.parent / "made.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{SHIPPED.stat().st_size / 1e6:.1f} MB", record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["make", "pack"])
    parser.add_argument("--folder", type=Path, default=cache_folder() / "curtain")
    parser.add_argument("--patients", type=int, nargs=2, default=[0, PHANTOMS], help="some of them: from, to")
    given = parser.parse_args()
    if given.step == "make":
        make(given.folder, *given.patients)
    else:
        pack(given.folder)
