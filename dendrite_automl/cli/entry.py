"""`automl`: parse, call, print, exit code. No logic here, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from dendrite_automl.cli.parser import make_parser
from dendrite_automl.errors import AutoMLError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except AutoMLError as error:
        if options.debug:
            traceback.print_exc()
        print(f"automl: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if options.debug or (error.name or "").split(".")[0] == "dendrite_automl":
            raise
        what = "`pip install dendrite-automl` brings it; a light install has show, compare, verify, export --c and export --hub"
        print(f"automl: expected the package {error.name}, which is not installed; {what}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("automl: interrupted; continue with --resume if a run folder was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
