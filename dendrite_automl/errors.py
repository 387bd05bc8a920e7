"""All errors that the package raises on purpose. The CLI prints each as a single line and exits with its code."""

from dendrite_automl.plain import make_line


class AutoMLError(Exception):
    """Base of all errors of the package: the message says where, what was expected, what was found and what to do."""

    exit_code = 2

    def __str__(self) -> str:
        """The message as one plain line, whatever a name or a library's message in it contains."""
        return make_line(super().__str__())


class RequestError(AutoMLError):
    """The request is wrong (a flag, a file, a space, a knob); nothing was started and nothing was written."""


class SpaceError(RequestError):
    """A search space breaks a rule.

    Attributes:
        entry: the knob or entry that does; None if it is none in particular.
    """

    def __init__(self, message: str, *, entry: str | None = None) -> None:
        super().__init__(message)
        self.entry = entry


class BudgetUnreachable(AutoMLError):
    """Nothing in the search space can fit the budget; the message gives the smallest reachable network."""

    exit_code = 3


class ArtifactMismatch(AutoMLError):
    """An artifact differs from what it claims to be."""

    exit_code = 1


class CandidateFailed(AutoMLError):
    """One candidate could not be trained or measured; it is recorded with the reason and the search continues."""


class KindDoesNotSuit(RequestError, CandidateFailed):
    """A kind of dendrites that suits none of the layers: a wrong request of a caller, a failed candidate of a search."""


class Unsupported(AutoMLError):
    """An operator or a shape without a kernel in C or TensorFlow Lite: this artifact is refused, others are not."""
