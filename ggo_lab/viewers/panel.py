"""What both viewers share: controls that follow a state, a still picture without a kernel, memory freed on close."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import ipywidgets as widgets

from ggo_lab.viewers.names import naming


class Panel(widgets.VBox):
    """A box of controls around a state of plain traits.

    State and controls change each other. While the controls are being brought in line with the state (`_quietly`),
    what they report is not taken as a wish of the user (`_asked`).
    """

    # ipywidgets 7 shows itself through this method and would leave out the still picture; None turns to
    # _repr_mimebundle_, which ipywidgets 8 uses anyway.
    _ipython_display_ = None

    def __init__(self) -> None:
        self._following = False
        super().__init__()
        self.add_class("ggo-panel")

    def _arrange(self, *children: widgets.Widget) -> None:
        """Show these, one under another, named for screen readers."""
        self.children = (*children, naming())

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._following = self._following, True
        try:
            yield
        finally:
            self._following = before

    def _asked(self, trait: str, value: object) -> None:
        """Take a value from a control, unless the control is only following the state."""
        if not self._following and value is not None:
            setattr(self, trait, value)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, object]:
        return {
            "text/plain": repr(self),
            "text/html": self._repr_html_(),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
        }

    def close(self) -> None:
        """Free the memory of the viewer and of everything in it, in the kernel and in the browser."""
        children, layout = self.children, self.layout
        super().close()
        layout.close()
        for child in children:
            close_tree(child)


def close_tree(widget: widgets.Widget) -> None:
    """Close a widget with all that belongs to it, which ipywidgets would keep alive."""
    if isinstance(widget, Panel):
        widget.close()
        return
    for child in getattr(widget, "children", ()):
        close_tree(child)
    for part in ("layout", "style"):
        owned = getattr(widget, part, None)
        if isinstance(owned, widgets.Widget):
            owned.close()
    widget.close()
