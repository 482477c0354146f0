"""What the notebooks need beside the library: checks of exercises; for teachers an edition, a site, a glossary."""

from ggo_lab.course.editions import write_exercises
from ggo_lab.course.exercises import NOTED, RIGHT, check_text, exercise
from ggo_lab.course.figures import caption
from ggo_lab.course.fork import link_to_fork
from ggo_lab.course.glossary import glossary
from ggo_lab.course.lesson import start_lesson
from ggo_lab.course.paper import PAPER_NETWORKS, nine_networks, paper_confusions, paper_log
from ggo_lab.course.reading import reading
from ggo_lab.course.simulated import simulated
from ggo_lab.course.site import write_site

__all__ = [
    "NOTED",
    "PAPER_NETWORKS",
    "RIGHT",
    "caption",
    "check_text",
    "exercise",
    "glossary",
    "link_to_fork",
    "nine_networks",
    "paper_confusions",
    "paper_log",
    "reading",
    "simulated",
    "start_lesson",
    "write_exercises",
    "write_site",
]
