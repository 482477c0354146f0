"""Pretrain small networks on slices of phantoms, whose involvement is known exactly: weights="phantom".

Each picture holds three slices of one phantom as channels, as the course's images do: neighbours, or spread over the
scan. The network names, for each of the three and for each lung, the share of the lung that is diseased, and how much
of the picture the lung fills. While it learns, the same is asked at every place of some inner layers (deep supervision,
Lee et al. 2015, https://arxiv.org/abs/1409.5185): one number a lung teaches too little about what haze looks like. What
answers there is thrown away. No phantom of any cohort is among these patients: their seeds lie apart.

    python benchmarks/pretrain.py slices                    # 2,000 patients, once; goes on where it stopped
    python benchmarks/pretrain.py train resnet18            # one network; goes on where it stopped

With `--world wide` the pictures are drawn as those of the network that finds lungs are (`train_lung_network.py`), at
any breath, kernel, dose and field of view, so that the network holds on patients: `read_slices(scan, world="wide")`.
It goes on from the weights of the other world, or, `--again`, from its own.

    python benchmarks/pretrain.py slices --world wide       # 320 patients
    python benchmarks/pretrain.py train squeezenet1_0 --world wide
    python benchmarks/pretrain.py train squeezenet1_0 --world wide --again
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import train_lung_network
from lung_randomiser import Randomiser
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits

import ggo_lab
from ggo_lab.backbones.slice_reader import reader_network
from ggo_lab.phantom import make_phantom
from ggo_lab.scan import WINDOWS, window
from ggo_lab.storage import cache_folder

SHAPE = (32, 128, 128)  # voxels of a phantom: the course's
PATIENTS, SHARD = 2000, 50
HELD_OUT = 50  # the first patients, on which nothing learns
FIRST_SEED = 5_000_000_000_000  # a cohort's seeds begin at 100,000 times its own, far below
HEALTHY = 0.08  # share of patients without lesions
SIDES = ("right_lung", "left_lung")
SEED, BATCH, SIZES = 101, 32, (64, 96)  # rows and columns, drawn for each batch
STEPS = {"resnet18": 4000, "squeezenet1_0": 6000, "mobilenet_v3_small": 3000}
# The last of them at the size at which slices are read, alone: BatchNorm averages over two sizes are of neither (at 96
# pixels they cost ResNet-18 13 points of bias).
LAST, LAST_SIZE = 0.25, 96
RATE = {"resnet18": 2e-3, "squeezenet1_0": 1e-3, "mobilenet_v3_small": 3e-3}  # the highest of one cycle
ASKED_WITHIN = {
    "resnet18": ("layer2", "layer3", "layer4"),
    "squeezenet1_0": ("features.7", "features.12"),
    "mobilenet_v3_small": ("features.3", "features.8", "features.12"),
}
GRID = 12  # rows and columns of the truth for inner layers, which have so many or fewer
# Of ImageNet, as every Backbone normalises.
MEAN, SD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
# Of a slice's lung, as its weight in the loss. In the wide world slices are ranked, so those at the ends count, too.
POWER = {"people": 1.0, "wide": 0.5}
MARGIN_MM = 5.0  # around the lungs, as Recipe(crop="lungs") leaves
# The wide world: its patients, those of them on which nothing learns, steps; slices between the three of a picture at
# most; sides of pictures in pixels of 4 mm, before and after they are cut or framed.
WIDE_SEEDS, WIDE_HELD_OUT, WIDE_STEPS, AGAIN_STEPS = range(920_000, 920_320), 16, 12_000, 6000
APART, WIDE_SIZES, WIDE_FRAMES = 2, (72, 84, 96), (0.8, 1.3)
WEIGHTS = Path(ggo_lab.__file__).parent / "backbones" / "weights"


def slices_of(seed: int) -> dict[str, np.ndarray]:
    """Make one patient.

    Returns: `grey` uint8 (Z, Y, X); `tissue` uint8 (Z, Y, X), 0 outside lungs, 1 lung, 2 lesion; `lungs` and `lesions`
        int32 (Z, 2), pixels of the right and left lung in each slice; `box` (4,), top, bottom, left and right of the
        lungs in the picture; `pixel`, its size in mm.
    """
    rng = np.random.default_rng(seed)
    involvement = 0.0 if rng.random() < HEALTHY else float(rng.uniform(0.02, 0.95))
    scan = make_phantom(involvement=involvement, seed=seed, shape=SHAPE)
    sides = [scan.truth.masks[side] & scan.truth.lungs for side in SIDES]
    rows, columns = (np.flatnonzero(scan.truth.lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return {
        "grey": window(scan.hu, *WINDOWS["paper"]),
        "tissue": scan.truth.lungs.astype(np.uint8) + (scan.truth.lungs & scan.truth.lesions),
        "lungs": np.stack([side.sum(axis=(1, 2)) for side in sides], axis=1).astype(np.int32),
        "lesions": np.stack([(side & scan.truth.lesions).sum(axis=(1, 2)) for side in sides], axis=1).astype(np.int32),
        "box": np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1], np.int32),
        "pixel": np.array(scan.spacing[2], np.float32),
    }


def make_slices(folder: Path, jobs: int, shards: range) -> None:
    """Make the patients in shards; a shard that is there is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with ProcessPoolExecutor(jobs) as pool:
        for shard in shards:
            path = folder / f"slices_{shard:03d}.npz"
            if path.exists():
                continue
            seeds = range(FIRST_SEED + shard * SHARD, FIRST_SEED + (shard + 1) * SHARD)
            made = list(pool.map(slices_of, seeds))
            part = path.with_suffix(".part.npz")
            np.savez(part, **{key: np.stack([one[key] for one in made]) for key in made[0]})
            part.rename(path)
            print(f"{path.name}  {time.perf_counter() - start:.0f} s", flush=True)


class Slices:
    """The slices of all patients, and pictures drawn from them.

    Training may begin while patients are still being made: step by step it draws from more of them, and waits for
    those that it lacks.
    """

    def __init__(self, folder: Path):
        self.folder, self.shards = folder, []

    def patient(self, number: int) -> dict[str, np.ndarray]:
        """Give what slices_of gave."""
        while len(self.shards) * SHARD <= number:
            path = self.folder / f"slices_{len(self.shards):03d}.npz"
            while not path.exists():
                time.sleep(5)
            with np.load(path) as stored:
                self.shards.append(dict(stored))
        return {key: value[number % SHARD] for key, value in self.shards[number // SHARD].items()}

    def random(self, rng: np.random.Generator, size: int, progress: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw one picture and both its truths: whose, which slices, which part of them, and whether mirrored."""
        last = max(HELD_OUT + 1, int(HELD_OUT + (PATIENTS - HELD_OUT) * (0.1 + 0.9 * progress)))
        patient = self.patient(int(rng.integers(HELD_OUT, last)))
        with_lung, count = np.flatnonzero(patient["lungs"].sum(axis=1)), len(patient["grey"])
        first, end = (0, count) if rng.random() < 0.4 else (with_lung[0], with_lung[-1] + 1)
        if rng.random() < 0.6:  # one in each third
            chosen = np.floor(first + (end - first) * (np.arange(3) + rng.random(3)) / 3).astype(int)
        else:  # neighbours, or a few apart
            gap = int(rng.integers(1, 4))
            chosen = np.clip(int(rng.integers(first, end)) + gap * np.arange(-1, 2), 0, count - 1)
        whole = float(rng.choice([0.0, 1.0, rng.random()], p=[0.5, 0.35, 0.15]))
        frame = frame_of(patient, whole, rng.normal(0, 2.5, 2))
        picture, truth = draw(patient, chosen, frame, size), truth_of(patient, chosen, frame[2])
        places = places_of(patient, chosen, frame)
        if rng.random() < 0.5:
            picture, truth, places = picture[:, :, ::-1], truth[:, :, ::-1], places[..., ::-1]
        return picture, truth, places

    def batch(self, rng: np.random.Generator, size: int, progress: float) -> tuple[Tensor, ...]:
        """Draw pictures and both their truths."""
        return stacked([self.random(rng, size, progress) for _ in range(BATCH)])

    def judge(self, network: nn.Module) -> dict[str, float]:
        """Score the network on the patients held out, at 96 pixels: on slices, and on the patient they add up to."""
        slice_errors, patient_errors = [], []
        for number in range(HELD_OUT):
            patient = self.patient(number)
            with_lung = np.flatnonzero(patient["lungs"].sum(axis=1))
            first, end = with_lung[0], with_lung[-1] + 1
            # Fifteen slices, three a picture, each from another third, as in training.
            chosen = np.floor(first + (end - first) * (np.arange(15) + 0.5) / 15).astype(int).reshape(3, 5).T
            frame = frame_of(patient, 0.0, np.zeros(2))
            pictures = torch.tensor(np.stack([draw(patient, three, frame, 96) for three in chosen]))
            truth = torch.tensor(np.stack([truth_of(patient, three, frame[2]) for three in chosen]))
            said, lung = shares_of(network, pictures), truth[:, 1]
            slice_errors.append(float(((said[:, 0] - truth[:, 0]).abs() * lung).sum() / lung.sum()))
            added = float((said[:, 0] * said[:, 1]).sum() / said[:, 1].sum())
            patient_errors.append(abs(added - patient["lesions"].sum() / patient["lungs"].sum()))
        return {
            "patients": PATIENTS,
            "slice_error": round(float(np.mean(slice_errors)), 4),
            "patient_error": round(float(np.mean(patient_errors)), 4),
        }


class WideSlices:
    """Pictures of the wide world: three neighbours each, changed at random as `lung_randomiser.py` does."""

    def __init__(self, folder: Path):
        self.learnt = train_lung_network.Phantoms(folder, WIDE_SEEDS[WIDE_HELD_OUT:])
        self.held_out = train_lung_network.Phantoms(folder, WIDE_SEEDS[:WIDE_HELD_OUT])

    def batch(self, rng: np.random.Generator, size: int, _progress: float) -> tuple[Tensor, ...]:
        """Draw pictures and both their truths."""
        return self._drawn(self.learnt, rng, size)

    def _drawn(self, phantoms: train_lung_network.Phantoms, rng: np.random.Generator, size: int) -> tuple[Tensor, ...]:
        randomiser = Randomiser(int(rng.integers(2**62)))
        hu, side, lesion, _ = randomiser(*phantoms.draw(rng, BATCH, APART), int(rng.choice(WIDE_SIZES)))
        grey, lung = window(hu.numpy(), *WINDOWS["paper"]), side.numpy()
        tissue = (lung > 0).astype(np.uint8) + ((lung > 0) & (lesion.numpy() > 0))
        found, three = [], np.arange(3)
        for number in range(BATCH):
            sides = [lung[number] == which for which in (1, 2)]  # right, left
            patient = {"grey": grey[number], "tissue": tissue[number]}
            patient["lungs"] = np.stack([own.sum(axis=(1, 2)) for own in sides], axis=1)
            patient["lesions"] = np.stack([(own & (tissue[number] == 2)).sum(axis=(1, 2)) for own in sides], axis=1)
            frame = self._frame(rng, lung[number] > 0)
            truth, places = truth_of(patient, three, frame[2]), places_of(patient, three, frame)
            found.append((draw(patient, three, frame, size), truth, places))
        return stacked(found)

    def _frame(self, rng: np.random.Generator, lung: np.ndarray) -> tuple[int, int, int]:
        """Draw top, left and side of a picture: a field of view that holds the lungs, wherever they lie in it."""
        pixels = lung.shape[-1]
        lines, columns = (np.append(np.flatnonzero(lung.any(axis=axes)), pixels // 2) for axes in ((0, 2), (0, 1)))
        first, end = np.array([lines.min(), columns.min()]), np.array([lines.max(), columns.max()]) + 1
        side = max(round(pixels * rng.uniform(*WIDE_FRAMES)), *(end - first))
        corner = np.clip((pixels - side) / 2 + rng.normal(0, 3, 2), end - side, first)
        return round(corner[0]), round(corner[1]), side

    def judge(self, network: nn.Module) -> dict[str, float]:
        """Score the network on slices of the patients held out, changed as all are."""
        wrong = seen = 0.0
        for number in range(20):
            rng = np.random.default_rng([SEED, WIDE_STEPS + number])
            pictures, truth, _ = self._drawn(self.held_out, rng, LAST_SIZE)
            wrong += float(((shares_of(network, pictures)[:, 0] - truth[:, 0]).abs() * truth[:, 1]).sum())
            seen += float(truth[:, 1].sum())
        return {"patients": len(WIDE_SEEDS), "slice_error": round(wrong / seen, 4)}


def stacked(drawn: list[tuple[np.ndarray, ...]]) -> tuple[Tensor, ...]:
    """Make a batch of single pictures and their truths."""
    return tuple(torch.tensor(np.stack(part)) for part in zip(*drawn, strict=True))


def frame_of(patient: dict[str, np.ndarray], whole: float, shift: np.ndarray) -> tuple[int, int, int]:
    """Give top, left and side of a picture: from the square around the lungs (0) to the whole slice (1)."""
    top, bottom, left, right = patient["box"]
    around = max(bottom - top, right - left) + 2 * MARGIN_MM / patient["pixel"]
    middle, full = np.array([(top + bottom) / 2, (left + right) / 2]), patient["grey"].shape[-1]
    side = around + whole * (full - around)
    corner = middle + whole * (full / 2 - middle) + shift - side / 2
    return round(corner[0]), round(corner[1]), int(np.ceil(side))


def draw(patient: dict[str, np.ndarray], chosen: np.ndarray, frame: tuple[int, int, int], size: int) -> np.ndarray:
    """Give uint8 (C, size, size), as Cut.image makes it."""
    top, left, side = frame
    box = (left, top, left + side, top + side)
    cut = [Image.fromarray(patient["grey"][z]).crop(box) for z in chosen]
    return np.stack([np.asarray(one.resize((size, size), Image.Resampling.BILINEAR)) for one in cut])


def truth_of(patient: dict[str, np.ndarray], chosen: np.ndarray, side: int) -> np.ndarray:
    """Give float32 (2, C, 2): involvement, and share of the picture that is lung, a slice and lung."""
    lungs, lesions = patient["lungs"][chosen], patient["lesions"][chosen]
    return np.stack([lesions / np.maximum(lungs, 1), lungs / side**2]).astype(np.float32)


def places_of(patient: dict[str, np.ndarray], chosen: np.ndarray, frame: tuple[int, int, int]) -> np.ndarray:
    """Give float32 (2, C, GRID, GRID): lesion, and lung, as shares of each place of the picture."""
    top, left, side = frame
    box = (left, top, left + side, top + side)
    both = [
        [Image.fromarray(255 * (patient["tissue"][z] >= least).astype(np.uint8)).crop(box) for z in chosen]
        for least in (2, 1)
    ]
    shares = [[np.asarray(one.resize((GRID, GRID), Image.Resampling.BOX)) for one in which] for which in both]
    return np.array(shares, np.float32) / 255


def batches(
    slices: Slices | WideSlices, steps: int, first: int, seed: int
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Draw batches; each depends on seed and step alone, so that an interrupted run goes on with the same."""
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        size = int(rng.choice(SIZES)) if step < (1 - LAST) * steps else LAST_SIZE
        pictures, truth, places = slices.batch(rng, size, min(1.0, 1.5 * step / steps))
        yield step, pictures, truth, places


def normalised(pictures: Tensor) -> Tensor:
    """Give float pictures as the networks take them, in the memory format that convolutions like."""
    normal = (pictures.float() / 255 - MEAN.view(3, 1, 1)) / SD.view(3, 1, 1)
    return normal.contiguous(memory_format=torch.channels_last)


def loss_of(outputs: Tensor, truth: Tensor, power: float) -> Tensor:
    """Cross-entropy of the shares, weighted by lung to a power, plus the error of how much of the picture is lung."""
    said = outputs.float().view(-1, 2, 3, 2)
    lung = truth[:, 1]
    weight = lung**power
    shares = binary_cross_entropy_with_logits(said[:, 0], truth[:, 0], weight=weight / weight.mean())
    return shares + 10 * (said[:, 1].sigmoid() - lung).abs().mean()


class Within(nn.Module):
    """What some inner layers say of every place: involvement and lung of the three slices there."""

    def __init__(self, network: nn.Module, layers: tuple[str, ...]):
        super().__init__()
        self.seen: dict[str, Tensor] = {}
        for layer in layers:
            network.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, output, layer=layer: self.seen.__setitem__(layer, output)
            )
        network.eval()  # so that no average of BatchNorm moves
        with torch.no_grad():
            network(torch.zeros(1, 3, LAST_SIZE, LAST_SIZE))
        self.asked = nn.ModuleList(nn.Conv2d(self.seen[layer].shape[1], 2 * 3, 1) for layer in layers)

    def loss(self, places: Tensor) -> Tensor:
        """Give the mean over layers of loss_of's first term, place by place, and of the cross-entropy of lung."""
        losses = []
        for ask, seen in zip(self.asked, self.seen.values(), strict=True):
            said = ask(seen).float().unflatten(1, (2, 3))
            lesion, lung = adaptive_avg_pool2d(places.flatten(1, 2), said.shape[-2:]).view_as(said).unbind(1)
            share = lesion / lung.clamp(min=1e-3)
            weighted = binary_cross_entropy_with_logits(said[:, 0], share.clamp(max=1), weight=lung / lung.mean())
            losses.append(weighted + binary_cross_entropy_with_logits(said[:, 1], lung))
        return torch.stack(losses).mean()


def train(name: str, folder: Path, wide: bool, at_most: int | None, again: bool, seed: int) -> None:
    """Train one network, with a checkpoint every 80 steps, and store its 16-bit state."""
    torch.manual_seed(seed)
    world, steps = ("wide", AGAIN_STEPS if again else WIDE_STEPS) if wide else ("people", STEPS[name])
    network = reader_network(name, world).to(memory_format=torch.channels_last)
    origin = {}
    if wide:
        start = (WEIGHTS / "wide" if again else WEIGHTS) / f"{name}.safetensors"
        network.load_state_dict({key: one.float() for key, one in load_file(start).items()})
        origin["went_on_from"] = hashlib.sha256(start.read_bytes()).hexdigest()
    within = Within(network, ASKED_WITHIN[name])
    parameters = [*network.parameters(), *within.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE[name], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE[name], total_steps=steps, pct_start=0.15)
    slices = WideSlices(folder) if wide else Slices(folder)
    kept, first, spent = folder / f"{name}.pt", 0, 0.0
    if kept.exists():
        stored = torch.load(kept, weights_only=True)
        network.load_state_dict(stored["network"])
        within.load_state_dict(stored["within"])
        optimizer.load_state_dict(stored["optimizer"])
        schedule.load_state_dict(stored["schedule"])
        first, spent = stored["step"] + 1, stored["seconds"]
        torch.set_rng_state(stored["random"])  # what dropout draws
    began, cpu, losses = time.perf_counter() - spent, time.process_time(), []
    network.train()
    for step, pictures, truth, places in batches(slices, steps, first, seed):
        half = train_lung_network.HALF and name != "mobilenet_v3_small"  # there it costs time
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(network(normalised(pictures)), truth, POWER[world]) + within.loss(places)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 80 == 79 or step == steps - 1:
            state = {"network": network.state_dict(), "within": within.state_dict()}
            state["optimizer"] = optimizer.state_dict()
            more = {"schedule": schedule.state_dict(), "step": step, "seconds": time.perf_counter() - began}
            more["random"] = torch.get_rng_state()
            torch.save(state | more, kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
            done = f"{time.perf_counter() - began:5.0f} s, CPU {time.process_time() - cpu:5.0f} s"
            print(f"{name} step {step + 1:5} loss {np.mean(losses[-80:]):.4f}  {done}", flush=True)
        if step - first + 1 == at_most and step < steps - 1:
            return
    found = slices.judge(network)
    print(name, found, flush=True)
    found |= {"steps": steps, "seconds": round(time.perf_counter() - began), "seed": seed} | origin
    store(name, network, found, WEIGHTS / "wide" if wide else WEIGHTS)


@torch.inference_mode()
def shares_of(network: nn.Module, pictures: Tensor) -> Tensor:
    """Give what the network says, 0..1: (B, 2, 3, 2)."""
    network.eval()
    return network(normalised(pictures)).float().view(-1, 2, 3, 2).sigmoid()


def store(name: str, network: nn.Module, found: dict, folder: Path) -> None:
    """Write the state in 16 bits (what is one number a channel stays in 32), and what made it, beside it."""
    folder.mkdir(exist_ok=True)
    state = {
        key: value.detach().contiguous().half() if value.ndim > 1 else value.detach().clone()
        for key, value in network.state_dict().items()
    }
    path = folder / f"{name}.safetensors"
    save_file(state, path, {"pretrained": "benchmarks/pretrain.py"})
    path.chmod(0o644)  # safetensors writes for the owner alone
    record = folder / "made.json"
    made = json.loads(record.read_text()) if record.exists() else {}
    made[name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **found}
    record.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["slices", "train"])
    parser.add_argument("networks", nargs="*", choices=[[], *STEPS], default=[])
    parser.add_argument("--world", choices=["people", "wide"], default="people")
    parser.add_argument("--folder", type=Path, help="of the slices and checkpoints")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--shards", type=int, nargs=2, default=[0, PATIENTS // SHARD], help="some of them: from, to")
    parser.add_argument("--at-most", type=int, help="steps in this call; the next one goes on")
    parser.add_argument("--again", action="store_true", help="in the wide world: go on from the weights of that world")
    parser.add_argument("--seed", type=int, default=SEED, help="another one goes on with other pictures")
    given = parser.parse_args()
    wide = given.world == "wide"
    folder = given.folder or cache_folder() / ("pretraining_wide" if wide else "pretraining")
    if given.step == "slices" and wide:
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(given.jobs) as pool:
            list(pool.map(train_lung_network.make_slices, [folder] * len(WIDE_SEEDS), WIDE_SEEDS))
    elif given.step == "slices":
        make_slices(folder, given.jobs, range(*given.shards))
    for name in given.networks:
        train(name, folder, wide, given.at_most, given.again, given.seed)


if __name__ == "__main__":
    main()
