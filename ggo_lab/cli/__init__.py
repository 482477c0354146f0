"""The same functions for a terminal: `ggo-lab grade`, `train`, `sweep`, `prepare`, and more for teachers.

Several processes train one network with `torchrun --nproc-per-node 2 -m ggo_lab.cli train ...`.
"""

import os
import sys
import warnings

from ggo_lab.cli.outputs import DONE, INTERRUPTED, PARTLY, REFUSED
from ggo_lab.cli.parser import parser_for
from ggo_lab.errors import GgoLabError, printable


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what was typed after `ggo-lab`; the process's own when left out.

    Returns:
        The exit code: 0, 1 where some of several scans could not be graded, or 2 after one sentence on stderr.
    """
    arguments = sys.argv[1:] if arguments is None else [*map(str, arguments)]
    parser = parser_for(arguments[0] if arguments else None)
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return DONE
    formatwarning, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        return options.run(options) or DONE
    except GgoLabError as error:
        print(f"ggo-lab: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("ggo-lab: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PARTLY
    finally:
        warnings.formatwarning = formatwarning


def _warning(message: Warning | str, category: object, filename: str, lineno: int, line: str | None = None) -> str:
    """Write a warning without the line of code that it came from."""
    return f"ggo-lab: {printable(' '.join(str(message).split()))}\n"
