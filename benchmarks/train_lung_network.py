"""Train the network that finds lungs and haze, on phantoms alone, and write its weights into the package.

    python benchmarks/train_lung_network.py FOLDER
    python benchmarks/train_lung_network.py FOLDER --start ggo_lab/lungs/weights/unet.safetensors  # on from these
    python benchmarks/train_lung_network.py FOLDER --phantoms 4 --steps 50 --weights FOLDER/try.safetensors

After SynthSeg (Billot et al. 2023, Medical Image Analysis 86:102789): no scan of a person is seen. Half of the phantoms
are people, half come from a wider world (`make_phantom(world="wide")`); every batch is then changed at random in shape,
breath, disease, kernel, noise, field of view and surroundings (`lung_randomiser.py`). With it goes how dense the lungs
are in the whole scan, which three slices cannot tell. Stopped, it goes on from its last checkpoint when it is started
again.
"""

import argparse
import hashlib
import json
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from lung_randomiser import Batch, Randomiser, between
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from ggo_lab.lungs.unet import UNet, folded, normalise
from ggo_lab.phantom import make_phantom

WEIGHTS = Path(__file__).parents[1] / "ggo_lab" / "lungs" / "weights" / "unet.safetensors"
FIRST_SEED = 900_000  # of the phantoms: far from those that tests and notebooks look at
BATCH, SIZES = 16, (72, 80, 88, 96)
LEARNING_RATE, WEIGHT_DECAY, AVERAGED = 3e-3, 1e-4, 0.995  # AVERAGED: of the weights, from step to step
GO_ON_RATE = 5e-4  # learning rate of weights that were trained before
RECESS_SHARE, RECESS_SLICES = 0.2, 10  # so many samples more from the lowest slices, where the lung is a thin crescent
OUTSIDE_WEIGHT = 0.1  # of a voxel outside the lungs in the lesions' loss
PRICE = 3.0  # of consolidation in the sides' loss, and of what looks like it: between the lungs and beside them
BESIDE = 4  # pixels around the lungs that are beside them
SHAPE = (44, 168, 168)
HALF = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # elsewhere bfloat16 is imitated, a dozen times as slow
CONFOUNDERS = ("emphysema", "dependent_atelectasis", "effusion", "nodules")
CLEAR_SHARE, LEAST, MOST = 0.3, 0.03, 0.93  # share of phantoms without disease; involvement of the others


def make_slices(folder: Path, seed: int) -> None:
    """Make one phantom and keep what training needs: HU, labels, and how far each voxel is from the lungs' border."""
    path = folder / f"{seed:05d}.npz"
    if path.exists():
        return
    rng = np.random.default_rng([seed, 77])
    involvement = 0.0 if rng.random() < CLEAR_SHARE else float(rng.uniform(LEAST, MOST))
    chosen = tuple(name for name in CONFOUNDERS if rng.random() < 0.2)
    scan = make_phantom(
        involvement=involvement,
        seed=seed,
        shape=SHAPE,
        confounders=chosen,
        noise_hu=0.0,
        padded=False,
        kernel="standard",
        world="wide" if seed % 2 else "people",
    )
    truth = scan.truth
    assert truth is not None
    masks = truth.masks
    side = truth.lungs * (1 + masks["left_lung"].astype(np.uint8))
    lesion = masks["ggo"] + 2 * masks["consolidation"].astype(np.uint8)
    labels = (side + 4 * lesion + 16 * masks["vessels"] + 32 * masks["airways"]).astype(np.uint8)
    filled = truth.lungs | masks["airways"]
    depth = np.stack([ndimage.distance_transform_edt(plane) for plane in filled]) * scan.spacing[1]
    beyond = np.stack(
        [ndimage.distance_transform_edt(~plane) if plane.any() else np.full(plane.shape, 255.0) for plane in filled]
    )
    beyond = beyond * scan.spacing[1]
    fields = {"depth_mm": depth, "beyond_mm": beyond}
    small = {name: np.clip(field, 0, 255).astype(np.uint8) for name, field in fields.items()}
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, hu=scan.hu, labels=labels, spacing=scan.spacing, **small)
    os.replace(unfinished, path)


class Phantoms:
    """All slices of all phantoms, in memory."""

    def __init__(self, folder: Path, seeds: range):
        held = []
        for seed in seeds:
            with np.load(folder / f"{seed:05d}.npz") as stored:
                held.append({name: stored[name] for name in stored.files})
        names = ("hu", "labels", "depth_mm", "beyond_mm")
        self.hu, self.labels, self.depth, self.beyond = (np.stack([h[name] for h in held]) for name in names)
        self.lung = (self.labels & 3).any(axis=(2, 3))
        self.spacing = np.array([h["spacing"] for h in held], np.float32)

    def draw(self, rng: np.random.Generator, batch: int = BATCH, away: int = 2) -> tuple[Batch, Tensor]:
        """Draw slices with a neighbour on either side, at most so many slices away, and their pixels' sizes in mm."""
        which, middle = rng.integers(len(self.hu), size=batch), rng.integers(SHAPE[0], size=batch)
        again = ~self.lung[which, middle]  # drawn twice, so that fewer show neck and abdomen
        which[again], middle[again] = rng.integers((len(self.hu), SHAPE[0]), size=(int(again.sum()), 2)).T
        low = rng.random(batch) < RECESS_SHARE
        middle[low] = rng.integers(RECESS_SLICES, size=int(low.sum()))
        apart = rng.integers(1, away + 1, size=batch)
        z = np.clip(middle[:, None] + apart[:, None] * [[-1, 0, 1]], 0, SHAPE[0] - 1)
        hu, labels, depth, beyond = (
            torch.from_numpy(values[which[:, None], z]).float()
            for values in (self.hu, self.labels, self.depth, self.beyond)
        )
        flags = labels.int()
        side, lesion, vessel, airway = flags & 3, (flags >> 2) & 3, (flags >> 4) & 1, (flags >> 5) & 1
        low = torch.from_numpy(middle / (SHAPE[0] - 1)).float()
        drawn = Batch(hu, side.float(), lesion.float(), vessel.float(), airway.float(), depth, beyond, low)
        return drawn, torch.from_numpy(self.spacing[which, 1])


def loss_of(sides: Tensor, lesions: Tensor, side: Tensor, lesion: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and soft Dice of both outputs; the lesions count nearly only inside the lungs."""
    inside = (side > 0).float()
    chances = sides.softmax(1)
    near = functional.max_pool2d((side > 0).float()[:, None], 2 * BESIDE + 1, 1, BESIDE)[:, 0] > 0
    alike = ((between(side[:, None])[:, 0] > 0) | near) & (side == 0) | (lesion == 2)
    price = 1 + (PRICE - 1) * alike.float()
    side_loss = (functional.cross_entropy(sides, side, reduction="none") * price).sum() / price.sum()
    side_loss = side_loss + _missed(chances, side, torch.ones_like(inside))
    weight = OUTSIDE_WEIGHT + (1 - OUTSIDE_WEIGHT) * inside
    lesion_loss = (functional.cross_entropy(lesions, lesion, reduction="none") * weight).sum() / weight.sum()
    lesion_loss = lesion_loss + 0.5 * _missed(lesions.softmax(1), lesion, inside)
    return side_loss, lesion_loss


def _missed(chances: Tensor, label: Tensor, where: Tensor) -> Tensor:
    """One minus the soft Dice over the batch, mean of the two classes that are not background."""
    missed = 0.0
    for number in (1, 2):
        chance, truth = chances[:, number] * where, (label == number).float() * where
        missed = missed + 1 - (2 * (chance * truth).sum() + 50) / (chance.sum() + truth.sum() + 50)
    return torch.as_tensor(missed / 2)


def train(phantoms: Phantoms, steps: int, seed: int, folder: Path, start: Path | None) -> tuple[UNet, float]:
    """Train from random weights, from those of a file, or from the last checkpoint.

    Returns:
        The averaged network, and the seconds taken.
    """
    torch.manual_seed(seed)
    model, rate = UNet(norm=start is None), LEARNING_RATE
    if start is not None:  # its batch normalisation lies in the convolutions
        stored = {name: value.float() for name, value in load_file(start).items()}
        model.load_state_dict(model.state_dict() | stored)  # what weights of a former version lack begins anew
        rate = GO_ON_RATE
    model.to(memory_format=torch.channels_last)
    averaged = UNet(norm=start is None)
    averaged.load_state_dict(model.state_dict())
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    first, spent, checkpoint = 0, 0.0, folder / "checkpoint.pt"
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        first, spent = kept["step"], kept["seconds"]
        model.load_state_dict(kept["model"])
        averaged.load_state_dict(kept["averaged"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.last_epoch = first
        for group in optimizer.param_groups:
            group["lr"] = rate * _rate(first, steps)
    began, sums = time.perf_counter(), np.zeros(2)

    def batch(number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rng, randomiser = np.random.default_rng([seed, number]), Randomiser(seed * 1_000_003 + number)
        hu, side, lesion, density = randomiser(*phantoms.draw(rng), int(rng.choice(SIZES)))
        return hu, side[:, 1], lesion[:, 1], density

    batches = _ahead(batch, range(first // 2, (steps + 1) // 2))
    for step in range(first, steps):
        # Making a batch costs as much as learning from it, so each serves twice, the second time mirrored and moved.
        if step % 2 == 0:
            hu, side, lesion, density = next(batches)
        else:
            hu, lesion = hu.flip(3).roll((3, -4), (2, 3)) + 12, lesion.flip(2).roll((3, -4), (1, 2))
            side = torch.where(side > 0, 3 - side, side).flip(2).roll((3, -4), (1, 2))
        images = normalise(hu).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
            features, sides = model(images)
            lesions = model.lesions(features, density)
        side_loss, lesion_loss = loss_of(sides, lesions, side, lesion)
        optimizer.zero_grad()
        (side_loss + lesion_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        kept_share = min(AVERAGED, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept_one, new in zip(averaged.parameters(), model.parameters(), strict=True):
                kept_one.lerp_(new, 1 - kept_share)
            for kept_one, new in zip(averaged.buffers(), model.buffers(), strict=True):
                kept_one.lerp_(new, 1 - kept_share) if kept_one.is_floating_point() else kept_one.copy_(new)
        sums += side_loss.item(), lesion_loss.item()
        if (step + 1) % 50 == 0:
            seconds = spent + time.perf_counter() - began
            print(f"step {step + 1}: {seconds:.0f} s, side {sums[0] / 50:.4f}, lesion {sums[1] / 50:.4f}", flush=True)
            sums[:] = 0
            state = {
                "step": step + 1,
                "seconds": seconds,
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
            }
            state |= {"optimizer": optimizer.state_dict()}
            torch.save(state, checkpoint.with_suffix(".unfinished"))
            os.replace(checkpoint.with_suffix(".unfinished"), checkpoint)
    return averaged, spent + time.perf_counter() - began


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a fifth of the steps to warm up, a fifth held, the rest to fall to nought."""
    warm, held = 0.2 * steps, 0.4 * steps
    if step < warm:
        return float(0.5 - 0.48 * np.cos(np.pi * step / warm))
    return float(0.5 + 0.5 * np.cos(np.pi * max(0.0, step - held) / (steps - held)))


def _ahead(make: Callable[[int], tuple], numbers: range) -> Iterator[tuple]:
    """Yield what is made for each number; the next is made in a thread of its own meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(make, number) for number in numbers[:2])
        for number in numbers:
            made = coming.popleft().result()
            if number + 2 < numbers.stop:
                coming.append(pool.submit(make, number + 2))
            yield made


def write(trained: UNet, path: Path, told: dict[str, str]) -> None:
    """Write the weights in half precision, and beside them a checksum and how they were made."""
    plain = folded(trained) if any(isinstance(m, torch.nn.BatchNorm2d) for m in trained.modules()) else trained
    state = {name: value.half().contiguous() for name, value in plain.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    told = told | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": str(path.stat().st_size)}
    path.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Make the phantoms, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where phantoms and checkpoints are kept, 1.2 GB")
    parser.add_argument("--phantoms", type=int, default=176)
    parser.add_argument("--skip", type=int, default=0, help="so many phantoms, which a former run has learnt from")
    parser.add_argument("--steps", type=int, default=1850)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights to go on from, as of a former run; else random ones")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the weights are written")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    first = FIRST_SEED + arguments.skip
    seeds = range(first, first + arguments.phantoms)
    for seed in seeds:
        make_slices(arguments.folder, seed)
    phantoms = Phantoms(arguments.folder, seeds)
    trained, seconds = train(phantoms, arguments.steps, arguments.seed, arguments.folder, arguments.start)
    precision = "bfloat16" if HALF else "float32"
    machine = f"{platform.machine()}, {arguments.threads} thread(s), torch {torch.__version__}, {precision}"
    told = {name: str(getattr(arguments, name)) for name in ("phantoms", "skip", "steps", "seed")}
    write(trained, arguments.weights, told | {"minutes": f"{seconds / 60:.0f}", "machine": machine})


if __name__ == "__main__":
    main()
