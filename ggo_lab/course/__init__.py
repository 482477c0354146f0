"""What the notebooks need beside the library: the checks of their exercises."""

from ggo_lab.course.exercises import RIGHT, check_text, exercise

__all__ = ["RIGHT", "check_text", "exercise"]
