"""What the notebooks need beside the library: checks of exercises, an edition without solutions, a glossary."""

from ggo_lab.course.editions import write_exercises
from ggo_lab.course.exercises import RIGHT, check_text, exercise
from ggo_lab.course.glossary import glossary

__all__ = ["RIGHT", "check_text", "exercise", "glossary", "write_exercises"]
