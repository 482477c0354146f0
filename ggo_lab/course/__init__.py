"""What the notebooks need beside the library: checks of exercises; for teachers an edition, a site, a glossary."""

from ggo_lab.course.editions import write_exercises
from ggo_lab.course.exercises import RIGHT, check_text, exercise
from ggo_lab.course.fork import link_to_fork
from ggo_lab.course.glossary import glossary
from ggo_lab.course.site import write_site

__all__ = ["RIGHT", "check_text", "exercise", "glossary", "link_to_fork", "write_exercises", "write_site"]
