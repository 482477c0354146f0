"""What the notebooks need beside the library: the checks of their exercises, and an edition without solutions."""

from ggo_lab.course.editions import write_exercises
from ggo_lab.course.exercises import RIGHT, check_text, exercise

__all__ = ["RIGHT", "check_text", "exercise", "write_exercises"]
