"""optuna.log: the search as an Optuna journal, one study per arm, for `optuna-dashboard` and Optuna's own analyses."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection

from dendrite_automl.run import Journal
from dendrite_automl.space import parse_space

NAME = "optuna.log"
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


def write_optuna_log(journal: Journal) -> Path:
    """Rewrite the journal in the run folder: one trial per candidate that has a snapshot.

    Its values are those of the last snapshot, with the accuracy that the search saw, inside the budget or not.

    Raises:
        AutoMLError: it cannot be written; an earlier one stays.
    """
    run = journal.run
    objectives = run.info.goal.objectives
    space = parse_space(run.info.space.text, where=f"{run.path}/run.json")
    choices = {knob.name: CategoricalDistribution(knob.choices) for knob in space.knobs}
    points = {line["candidate"]: line.get("point") or {} for line in run.of_kind("trial")}
    last = {snapshot.candidate: snapshot for snapshot in run.snapshots()}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            path = Path(folder) / NAME
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
            for arm in run.info.arms:
                directions = [_DIRECTIONS[objective.direction] for objective in objectives]
                study = optuna.create_study(study_name=f"{run.path.name}/{arm}", storage=storage, directions=directions)
                study.set_metric_names([objective.name for objective in objectives])
                for snapshot in (s for s in last.values() if s.arm == arm):
                    values, point = snapshot.values(), points[snapshot.candidate]
                    # a repaired size, or a knob from an earlier version of the space, may not be among the choices
                    known = {k: v for k, v in point.items() if k in choices and v in choices[k].choices}
                    study.add_trial(
                        optuna.trial.create_trial(
                            params=known,
                            distributions={name: choices[name] for name in known},
                            values=[float(values[objective.name]) for objective in objectives],
                            user_attrs={"snapshot": snapshot.id, "schedule": snapshot.schedule},
                        )
                    )
            return journal.write_text(NAME, path.read_text(encoding="utf-8"))
    finally:
        optuna.logging.set_verbosity(before)
