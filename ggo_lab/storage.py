"""Where the package keeps what it can make again, and how every file is written: whole, or not at all."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedWriter
from pathlib import Path

from ggo_lab.errors import GgoLabError

_UNFINISHED = ".unfinished-"  # how temporary names begin
_ABANDONED_S = 24 * 3600  # nobody writes one file for longer


def cache_folder() -> Path:
    """Give the folder for what can be made again: $GGO_LAB_CACHE, or ggo_lab in the user's cache folder."""
    if chosen := os.environ.get("GGO_LAB_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ggo_lab"


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a GgoLabError that names the path and says what to do."""
    try:
        yield
    except OSError as error:
        raise GgoLabError(
            f"{path}: cannot be written ({error.strerror or error}); free some space, or choose another folder (for "
            "the cache: set GGO_LAB_CACHE). Nothing that was there is damaged.",
            path,
        ) from None


def write_whole(path: Path, write: Callable[[BufferedWriter], object]) -> None:
    """Write a file under a temporary name, then rename it, so that readers see all of it or nothing.

    Args:
        path: the file; its folder is made if need be.
        write: given the open file, writes the content.
    Raises:
        GgoLabError: the folder or file cannot be written; what was there before is still whole.
    """
    temporary = None
    with writing_to(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
            with os.fdopen(handle, "wb") as file:
                write(file)
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; these are as open() makes them
            os.replace(temporary, path)
        except BaseException:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8, as write_whole does."""
    write_whole(path, lambda file: file.write(text.encode()))


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
    """Give a text that changes with the code of the named rooms, so that what older code made is not trusted.

    Args:
        rooms: modules or subpackages of ggo_lab, such as "scan" and "phantom".
    """
    house, digest = Path(__file__).parent, hashlib.sha256()
    for room in rooms:
        for file in sorted((house / room).glob("*.py")) or [house / f"{room}.py"]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
