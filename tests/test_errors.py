"""The exit codes of the command line are part of its contract."""

import pytest

from dendrite_automl.errors import ArtifactMismatch, AutoMLError, BudgetUnreachable, CandidateFailed, RequestError


@pytest.mark.parametrize(
    ("error", "code"),
    [(AutoMLError, 2), (RequestError, 2), (CandidateFailed, 2), (BudgetUnreachable, 3), (ArtifactMismatch, 1)],
)
def test_each_error_is_ours_and_has_its_exit_code(error: type[AutoMLError], code: int) -> None:
    assert issubclass(error, AutoMLError)
    assert error("why").exit_code == code
    assert str(error("why")) == "why"
