"""Where the package keeps what it can make again, and how every file is written.

A file appears whole or not at all, never over one that is being read, and never over one of another kind.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BufferedWriter
from pathlib import Path

from ggo_lab.errors import ChoiceError, GgoLabError, shown

_UNFINISHED = ".unfinished-"  # how temporary names begin
_TEMPORARY_NAME = 32  # characters of such a name, at most
_ABANDONED_S = 24 * 3600  # nobody writes one file for longer
_HEAD_BYTES = 4096  # enough to tell what a file holds


@dataclass(frozen=True)
class Kind:
    """A kind of file that the package writes, told by its name and by its first bytes.

    Attributes:
        name: for people, such as "a web page".
        suffixes: with which the file's name may end; a name without any suffix is allowed too. Empty: any name.
        is_one: whether the first bytes of a file are those of this kind.
    """

    name: str
    suffixes: tuple[str, ...]
    is_one: Callable[[bytes], bool]


def _is_nifti(head: bytes) -> bool:
    if head[:2] == b"\x1f\x8b":
        with suppress(zlib.error):  # what is damaged is none
            head = zlib.decompressobj(wbits=31).decompress(head, 4)
    return head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")  # the size of its header, 348


WEB_PAGE = Kind("a web page", (".html", ".htm"), lambda head: head.lstrip().lower().startswith(b"<!doctype html"))
MODEL_FILE = Kind("a model file", (".safetensors",), lambda head: head[8:9] == b"{")
NIFTI = Kind("a NIfTI file", (".nii.gz", ".nii"), _is_nifti)
NAME_LIST = Kind("a list of names", (".csv",), lambda head: not set(head) & set(b",;\t\0"))


def home_filled_in(path: str | Path) -> Path:
    """Return a path with `~` filled in; where a user is unknown, as it stands, where pathlib's own would raise.

    Raises:
        ChoiceError: what is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise ChoiceError(f"{shown(path)} is no path; give one as text, or a pathlib.Path.", path)
    return Path(os.path.expanduser(path))


def check_output(path: str | Path, kind: Kind | None, inputs: Iterable[str | Path] = (), force: bool = False) -> Path:
    """Make sure that a file can be written before the work that fills it is begun.

    Args:
        path: of the file to be written; `~` is the user's home.
        kind: what it will hold. None: a name that belongs to the package, where anything may be replaced.
        inputs: files and folders that are read; by whatever path, link or hard link the output is one of them, or
            lies inside one of these folders without being of its kind, it is refused.
        force: an existing file of another kind may be replaced all the same; an input never.

    Returns:
        The path, with the user's home filled in.

    Raises:
        ChoiceError: another suffix, an input, a folder or device, or an existing file of another kind.
        GgoLabError: nothing can be written there.
    """
    path = _allowed(path, kind, inputs, force)
    with writing_to(path):
        folder = next(parent for parent in _target(path).parents if os.path.lexists(parent))
        # Asking for permissions is not enough: a disk may be read-only, and an administrator may everything.
        with tempfile.TemporaryFile(dir=folder, prefix=_UNFINISHED):
            pass
    return path


def _allowed(path: str | Path, kind: Kind | None, inputs: Iterable[str | Path], force: bool = False) -> Path:
    """Do all of check_output that can be said without writing."""
    path = home_filled_in(path)
    if kind is not None and path.suffix and kind.suffixes and not path.name.lower().endswith(kind.suffixes):
        raise ChoiceError(f"{path}: the name of {kind.name} ends in {' or '.join(kind.suffixes)}.", path)
    with writing_to(path):
        target = _target(path)
        _check_names(target)
        if not target.exists():
            return path
        if not target.is_file():
            what = "a folder" if target.is_dir() else "a device"
            raise ChoiceError(f"{path}: {what} stands there; give the name of a file.", path)
        for source in map(home_filled_in, inputs):
            if source.exists() and (target.samefile(source) or _is_part(target, source, kind)):
                raise ChoiceError(
                    f"{path}: this file is being read (as {source}), and no input is ever overwritten; give the "
                    "output another name.",
                    path,
                )
        if kind is not None and not force and not _is_kind(target, kind):
            raise ChoiceError(
                f"{path}: this file exists and is not {kind.name}, so it is not replaced; give another name, or delete "
                "it first (in a terminal: --force).",
                path,
            )
    return path


def _target(path: Path) -> Path:
    """Follow links; unlike Path.resolve, without an error of its own where they lead in a circle."""
    return Path(os.path.realpath(path))


def _check_names(target: Path) -> None:
    """Raise the OSError that names too long for the disk end in; before the folders around them are made."""
    folder = next(parent for parent in (target, *target.parents) if os.path.lexists(parent))  # "/" has no parent
    if not hasattr(os, "pathconf"):  # Windows finds out when it writes
        return
    longest_name, longest_path = (os.pathconf(folder, limit) for limit in ("PC_NAME_MAX", "PC_PATH_MAX"))
    longest = max(len(os.fsencode(name)) for name in target.parts)
    # While it is written, the file has another name.
    if longest > longest_name or len(os.fsencode(target.parent)) + _TEMPORARY_NAME > longest_path:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _is_part(target: Path, source: Path, kind: Kind | None) -> bool:
    """Whether a file lies in a folder that is read, such as a DICOM series, and may be a part of it."""
    inside = source.is_dir() and target.is_relative_to(_target(source))
    return inside and not (kind is not None and _is_kind(target, kind))


def _is_kind(target: Path, kind: Kind) -> bool:
    with target.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or kind.is_one(head)


def cache_folder() -> Path:
    """Return the folder for what can be made again: $GGO_LAB_CACHE, or ggo_lab in the user's cache folder."""
    if chosen := os.environ.get("GGO_LAB_CACHE"):
        return home_filled_in(chosen)
    return home_filled_in(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ggo_lab"


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a GgoLabError that names the path and says what to do."""
    if "\0" in str(path):
        raise ChoiceError(f"{str(path)!r}: no file's name holds the character NUL; give another name.", path)
    try:
        yield
    except OSError as error:
        raise GgoLabError(
            f"{path}: cannot be written ({error.strerror or error}); free some space, or choose another folder (for "
            "the cache: set GGO_LAB_CACHE). Nothing that was there is damaged.",
            path,
        ) from None


def write_whole(
    path: Path, write: Callable[[BufferedWriter], object], kind: Kind | None = None, inputs: Iterable[str | Path] = ()
) -> None:
    """Write a file under a temporary name, then rename it, so that readers see all of it or nothing.

    Args:
        path: the file; its folder is made if need be, and a link stays one: what it leads to is written.
        write: given the open file, writes the content.
        kind: what it will hold, see check_output.
        inputs: what the content was made from, see check_output.

    Raises:
        ChoiceError: what check_output refuses.
        GgoLabError: the folder or file cannot be written; what was there before is still whole.
    """
    path, temporary = _allowed(path, kind, inputs), None
    made: list[Path] = []
    with writing_to(path):
        path = _target(path)
        try:
            # One by one: pathlib's way calls itself for each, too often for a thousand.
            for folder in reversed([parent for parent in path.parents if not parent.exists()]):
                folder.mkdir(exist_ok=True)
                made.append(folder)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
            with os.fdopen(handle, "wb") as file:
                write(file)
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; these are as open() makes them
            os.replace(temporary, path)
        except BaseException:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            for folder in reversed(made):
                with suppress(OSError):  # another process may have put something there
                    folder.rmdir()
            raise


def write_text_whole(path: Path, text: str, kind: Kind | None = None, inputs: Iterable[str | Path] = ()) -> None:
    """Write a text file, UTF-8, as write_whole does; bytes of file names that are no UTF-8 are shown as numbers."""
    write_whole(path, lambda file: file.write(text.encode(errors="backslashreplace")), kind, inputs)


def write_folder_whole(folder: Path, write: Callable[[Path], object]) -> None:
    """Fill a new folder under a temporary name, then rename it, so that readers see all of it or nothing.

    Args:
        folder: does not exist yet; the folder around it is made if need be.
        write: given the temporary folder, writes the files.

    Raises:
        GgoLabError: the folder cannot be written; nothing of it is left.
    """
    with writing_to(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_UNFINISHED))
        try:
            write(temporary)
            temporary.chmod(0o777 & ~_umask())  # mkdtemp makes private folders; this is as mkdir() makes them
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def is_unfinished(path: Path) -> bool:
    """Whether a file or folder bears the temporary name of one that is being written, or was when its writer died."""
    return path.name.startswith(_UNFINISHED)


def sweep_unfinished(folder: Path, older_than_s: float = _ABANDONED_S) -> None:
    """Delete what processes that were killed left half-written in a folder, at any depth.

    Args:
        folder: where they may lie.
        older_than_s: spares what was begun since, in seconds: another process may be writing it.
    """
    for path in list(folder.rglob(f"{_UNFINISHED}*")):
        with suppress(OSError):  # another process may have swept it, or it may not be ours to delete
            if path.stat().st_mtime <= time.time() - older_than_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _umask() -> int:
    """The permissions that this process withholds from new files; they can only be read by setting them."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


@cache
def code_fingerprint(*rooms: str) -> str:
    """Return a text that changes with the code of the named rooms, so that what older code made is not trusted.

    Args:
        rooms: modules or subpackages of ggo_lab, such as "scan" and "phantom".
    """
    house, digest = Path(__file__).parent, hashlib.sha256()
    for room in rooms:
        for file in sorted((house / room).glob("*.py")) or [house / f"{room}.py"]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
