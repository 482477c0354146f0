"""Damage files of every kind that is read, thousands of times, and see that each ends in a Scan or a GgoLabError.

    python tests/fuzz_readers.py --count 20000 --seed 1

Every case is read in a child process, so that a crash of a decoder, a hang or a hunger for memory is caught and named.
Case i of a seed is the same bytes every time: `--first i --count 1 --keep folder` writes it there.
"""

import argparse
import json
import queue
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from isal import igzip
from scan_files import SYNTAXES, as_itk, chest, save, text_volumes, write_enhanced, write_pictures, write_slices

from ggo_lab.errors import GgoLabError
from ggo_lab.readers import open_scan, read_labels, read_scan
from ggo_lab.scan import check_hu, window

LONGEST_S = 5.0  # of processor time; where other programs keep the cores busy, the clock runs faster
PATIENCE = 6  # times as long by the clock
MOST_MEMORY_KB = 1_000_000
_EXTREMES = [b"0", b"-1", b"1", b"7", b"255", b"65535", b"2147483647", b"99999999999999", b"1e308", b"nan", b"", b"1.5"]


@dataclass(frozen=True)
class Sample:
    """A good input: its files by name, and which of them is read ("" for the folder)."""

    files: dict[str, bytes]
    opened: str = ""


@dataclass
class Findings:
    """What a run saw: outcomes by kind of sample, and what must not be."""

    outcomes: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    memory_kb: int = 0
    on_stderr: str = ""


def corpus(folder: Path) -> dict[str, Sample]:
    """One small good input of every kind, by name; written into the folder first."""
    hu = chest()
    slices = chest((3, 40, 44))
    samples = {}

    def add(name: str, folder: Path, opened: str = "") -> None:
        samples[name] = Sample({p.name: p.read_bytes() for p in sorted(folder.iterdir())}, opened)

    def place(name: str) -> Path:
        (folder / name).mkdir(parents=True)
        return folder / name

    axes = np.diag([-0.8, -0.7, 5, 1])
    for name, values, kind, suffix in [
        ("nifti", hu, nib.Nifti1Image, "nii"),
        ("nifti-gz", hu, nib.Nifti1Image, "nii.gz"),
        ("nifti-float", hu.astype(np.float32), nib.Nifti1Image, "nii"),
        ("nifti-2", hu, nib.Nifti2Image, "nii.gz"),
        ("nifti-big-endian", hu.astype(">i2"), nib.Nifti1Image, "nii"),
    ]:
        image = kind(values.T, axes)
        if name == "nifti-big-endian":
            image = kind(values.T, axes, header=nib.Nifti1Header(endianness=">"))
        nib.save(image, place(name) / f"a.{suffix}")
        add(name, folder / name, f"a.{suffix}")
    for suffix, packed in [(s, p) for s in ("mha", "mhd", "nrrd", "nhdr") for p in (False, True)]:
        name = suffix + "-packed" * packed
        sitk.WriteImage(as_itk(hu), str(place(name) / f"a.{suffix}"), useCompression=packed)
        add(name, folder / name, f"a.{suffix}")
    for name, text in text_volumes(hu).items():
        (place(name) / f"a{Path(name).suffix}").write_bytes(text)
        add(name, folder / name, f"a{Path(name).suffix}")
    with warnings.catch_warnings():  # pydicom remarks on the syntaxes that nobody should write any more
        warnings.simplefilter("ignore")
        for syntax in SYNTAXES:
            write_slices(folder / f"dicom {syntax}", slices, syntax)
            add(f"dicom {syntax}", folder / f"dicom {syntax}")
        for syntax in ("explicit little endian", "JPEG-Lossless", "JPEG 2000"):
            write_enhanced(folder / f"enhanced {syntax}" / "a.dcm", hu, syntax)
            add(f"enhanced {syntax}", folder / f"enhanced {syntax}", "a.dcm")
        write_enhanced(folder / "attributes on top" / "a.dcm", hu)
        header = pydicom.dcmread(folder / "attributes on top" / "a.dcm")
        for group in list(shared := header.SharedFunctionalGroupsSequence[0]):
            header.update(group.value[0])
            del shared[group.tag]
        save(header, folder / "attributes on top" / "a.dcm")
        add("attributes on top", folder / "attributes on top", "a.dcm")
        for path in write_slices(folder / "dicom with sequences", slices):
            header = pydicom.dcmread(path)
            item = pydicom.Dataset()
            item.CodeValue, item.CodeMeaning = "THORAX-1", "Chest CT"
            item.PurposeOfReferenceCodeSequence = pydicom.Sequence([pydicom.Dataset()])
            header.ProcedureCodeSequence = pydicom.Sequence([item, item])
            header["ProcedureCodeSequence"].is_undefined_length = item.is_undefined_length_sequence_item = True
            save(header, path)
        add("dicom with sequences", folder / "dicom with sequences")
        for path in write_slices(folder / "dicom without a mark", slices):
            header = pydicom.dcmread(path)
            header.preamble, header.file_meta = None, pydicom.dataset.FileMetaDataset()
            path.unlink()
            header.save_as(path.with_suffix(""), implicit_vr=True, little_endian=True)
        add("dicom without a mark", folder / "dicom without a mark")
    write_pictures(folder / "jpg", window(hu[:3], -300, 1400), "{}.jpg")
    add("jpg", folder / "jpg")
    write_pictures(folder / "jpg of a challenge", window(chest((9, 40, 44)), -300, 1400), "slice_{:02}.jpg")
    (folder / "jpg of a challenge" / "cover.jpg").write_bytes((folder / "jpg" / "0.jpg").read_bytes())
    add("jpg of a challenge", folder / "jpg of a challenge")
    write_pictures(folder / "png", window(hu[:3], -300, 1400), "{}.png")
    add("png", folder / "png")
    return samples


def damaged(samples: dict[str, Sample], seed: int, number: int) -> tuple[str, dict[str, bytes], str]:
    """The sample's name, its files with one of them damaged, and the one to open, for case `number` of a seed."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choice(sorted(samples))
    sample = samples[name]
    files = dict(sample.files)
    victim = rng.choice(sorted(files))
    data = files[victim]
    inner = data[:2] == b"\x1f\x8b" and rng.random() < 0.6  # damage what is packed, not only the packing
    data = igzip.decompress(data) if inner else data
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _damage(data, samples, rng)
    files[victim] = igzip.compress(data) if inner else data
    return name, files, sample.opened


def _damage(data: bytes, samples: dict[str, Sample], rng: random.Random) -> bytes:
    """Data with one wound."""
    if not data:
        return data
    # Headers are small and decide; half of the wounds go there.
    at = rng.randrange(min(len(data), 700) if rng.random() < 0.5 else len(data))
    kind = rng.choice(("truncate", "flip", "flip", "run", "insert", "delete", "double", "head", "other", "text", "int"))
    if kind == "truncate":
        return data[:at]
    if kind == "flip":
        wounded = bytearray(data)
        for _ in range(rng.choice((1, 2, 8, 32))):
            place = rng.randrange(min(len(data), 700) if rng.random() < 0.5 else len(data))
            wounded[place] ^= 1 << rng.randrange(8)
        return bytes(wounded)
    length = rng.choice((1, 2, 4, 16, 200))
    if kind == "run":
        return data[:at] + rng.choice((b"\0", b"\xff", rng.randbytes(1))) * length + data[at + length :]
    if kind == "insert":
        return data[:at] + rng.randbytes(length) + data[at:]
    if kind == "delete":
        return data[:at] + data[at + length :]
    if kind == "double":
        return data[: at + length] + data[at:]
    if kind == "int":
        width = rng.choice((2, 4, 8))
        value = rng.choice((0, 1, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)) % 256**width
        return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]
    if kind == "text":
        numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data[:4000]))
        if not numbers:
            return data[:at]
        found = rng.choice(numbers)
        return data[: found.start()] + rng.choice(_EXTREMES) + data[found.end() :]
    other = samples[rng.choice(sorted(samples))].files
    other = other[rng.choice(sorted(other))]
    return other if kind == "other" else other[:at] + data[at:]  # "head": the header of another file


def _write(files: dict[str, bytes], folder: Path) -> None:
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _outcome(path: Path, number: int) -> str:
    """Read one case: "scan", the kind of error, or "FAULT" and why."""
    try:
        if number % 4 == 3 and path.is_file():
            labels = read_labels(path)
            fits = labels.ndim == 3 and labels.dtype.kind in "iu" and labels.size > 0
            return "labels" if fits else f"FAULT labels are {labels.dtype} {labels.shape}"
        scan = read_scan(path)
        if scan.is_hu:
            check_hu(scan.hu, path)
        return "scan"
    except GgoLabError as error:
        message = str(error)
        whole = "\n" not in message and message.endswith(".") and message.isprintable()
        return type(error).__name__ if whole else f"FAULT not one sentence: {message!r}"
    except BaseException as error:  # whatever it is, it is a fault of the readers
        return f"FAULT {type(error).__name__}: {error}"


def _child(seed: int, first: int, count: int, corpus_folder: Path) -> None:
    """Read cases and tell of each on stdout, before and after."""
    samples = _stored_corpus(corpus_folder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "case"
        folder.mkdir()
        open_scan(corpus_folder / "dicom JPEG-LS").whole()  # loads the decoders, once
        for number in range(first, first + count):
            name, files, opened = damaged(samples, seed, number)
            _write(files, folder)
            print(json.dumps([number, name]), flush=True)
            started = time.process_time()
            outcome = _outcome(folder / opened, number)
            seconds = time.process_time() - started
            memory = _peak_kb()
            print(json.dumps([number, name, outcome, seconds, memory]), flush=True)
            if memory > MOST_MEMORY_KB:
                return  # the peak of a process never falls again


def _peak_kb() -> int:
    """Peak memory of this process; 0 where the system does not tell it so."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _stored_corpus(folder: Path) -> dict[str, Sample]:
    opened = json.loads((folder / "opened.json").read_text(encoding="utf-8"))
    return {
        name: Sample({p.name: p.read_bytes() for p in sorted((folder / name).iterdir())}, which)
        for name, which in opened.items()
    }


def run(count: int, seed: int, first: int = 0, only: str = "") -> Findings:
    """Read `count` damaged inputs from number `first` on, of the samples whose name holds `only`."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        samples = {name: sample for name, sample in corpus(folder).items() if only in name}
        (folder / "opened.json").write_text(json.dumps({name: s.opened for name, s in samples.items()}))
        with tempfile.TemporaryFile("w+", errors="replace") as stderr:
            following = first
            while following < first + count:
                following = _run_child(seed, following, first + count - following, folder, findings, stderr)
            stderr.seek(0)
            findings.on_stderr = stderr.read()
    return findings


def _run_child(seed: int, first: int, count: int, folder: Path, findings: Findings, stderr) -> int:
    """Let one child read until it is done or dies; the number of the case that comes next."""
    command = [sys.executable, __file__, "--child", str(folder), "--seed", str(seed)]
    command += ["--first", str(first), "--count", str(count)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    lines: queue.Queue = queue.Queue()
    thread = threading.Thread(target=_forward, args=(child.stdout, lines), daemon=True)
    thread.start()
    number, name = first, "before the first case"
    begun = False
    try:
        while True:
            try:
                line = lines.get(timeout=PATIENCE * LONGEST_S if begun else 300)
            except queue.Empty:
                findings.faults.append(f"case {number} ({name}): no end after {PATIENCE * LONGEST_S:g} s")
                findings.outcomes[name, "FAULT hang"] += 1
                return number + 1
            if line is None:
                break
            number, name, *ended = json.loads(line)
            begun = not ended
            if ended:
                _note(number, name, *ended, findings)
    finally:
        child.kill()
        child.wait()
        thread.join()
        child.stdout.close()
    if begun:
        findings.faults.append(f"case {number} ({name}): the process died with status {child.returncode}")
        findings.outcomes[name, "FAULT crash"] += 1
    elif child.returncode not in (0, -9):
        raise RuntimeError(f"the child failed with status {child.returncode} outside of any case, after {number}")
    return number + 1


def _forward(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _note(number: int, name: str, outcome: str, seconds: float, memory: int, findings: Findings) -> None:
    findings.slowest_s = max(findings.slowest_s, seconds)
    findings.memory_kb = max(findings.memory_kb, memory)
    if memory > MOST_MEMORY_KB:
        outcome = f"FAULT memory of {memory // 1000} MB"
    if seconds > LONGEST_S:
        outcome = f"FAULT {seconds:.1f} s"
    if outcome.startswith("FAULT"):
        findings.faults.append(f"case {number} ({name}): {outcome}")
        outcome = " ".join(outcome.split()[:2])
    findings.outcomes[name, outcome] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="", help="take samples whose name holds this, such as JPEG")
    parser.add_argument("--keep", type=Path, help="write the case `first` into this folder, and read nothing")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.seed, options.first, options.count, options.child)
        return
    if options.keep:
        with tempfile.TemporaryDirectory() as temporary:
            samples = {name: s for name, s in corpus(Path(temporary)).items() if options.only in name}
            name, files, opened = damaged(samples, options.seed, options.first)
        options.keep.mkdir(parents=True, exist_ok=True)
        _write(files, options.keep)
        print(f"{name}: open {options.keep / opened}")
        return
    started = time.perf_counter()
    findings = run(options.count, options.seed, options.first, options.only)
    kinds = sorted({kind for _, kind in findings.outcomes})
    print(f"{'':36}" + "".join(f"{kind:>14}" for kind in kinds))
    for name in sorted({name for name, _ in findings.outcomes}):
        print(f"{name:36}" + "".join(f"{findings.outcomes[name, kind]:14}" for kind in kinds))
    total = sum(findings.outcomes.values())
    print(
        f"{total} cases in {time.perf_counter() - started:.0f} s; slowest {findings.slowest_s:.2f} s; "
        f"peak memory {findings.memory_kb / 1000:.0f} MB; {len(findings.on_stderr)} characters on stderr"
    )
    for fault in findings.faults:
        print(fault)
    print(findings.on_stderr[:2000], file=sys.stderr)
    sys.exit(bool(findings.faults))


if __name__ == "__main__":
    main()
