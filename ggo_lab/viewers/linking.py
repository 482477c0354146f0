"""Two or more viewers that scroll together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from traitlets import Bunch

from ggo_lab.errors import ChoiceError

if TYPE_CHECKING:
    from ggo_lab.viewers.slices import SliceViewer

_SHARED = ["plane", "index", "cross", "three_planes", "zoom", "centre", "probe"]


def link(one: SliceViewer, *others: SliceViewer) -> Callable[[], None]:
    """Let viewers of scans on one grid show the same slice, plane, part and probe, whichever of them is moved.

    Args:
        one: is followed at first.
        others: follow it, and are followed from then on.

    Returns:
        A function that ends it.

    Raises:
        ChoiceError: viewers of scans with different shapes.
    """
    viewers = (one, *others)
    for other in others:
        if other.scan.shape != one.scan.shape:
            raise ChoiceError(
                f"{one.scan.name} has the shape {one.scan.shape} and {other.scan.name} {other.scan.shape}; viewers "
                "can be linked where the scans have one grid.",
                other.scan.shape,
            )

    following = False  # while one viewer is brought in line, what it reports is no wish

    def follow(change: Bunch) -> None:
        nonlocal following
        if following:
            return
        following = True
        try:
            for viewer in viewers:
                if viewer is not change.owner:
                    viewer.look = {name: getattr(change.owner, name) for name in _SHARED}
        finally:
            following = False

    for viewer in viewers:
        viewer.observe(follow, _SHARED)
    follow(Bunch(owner=one))

    def unlink() -> None:
        for viewer in viewers:
            viewer.unobserve(follow, _SHARED)

    return unlink
