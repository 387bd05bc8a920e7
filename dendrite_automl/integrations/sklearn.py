"""CompressedClassifier, CompressedRegressor, CompressedDetector: a search as a scikit-learn estimator."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from dendrite_automl.api import search
from dendrite_automl.devices import RUNTIMES
from dendrite_automl.errors import BudgetUnreachable, RequestError
from dendrite_automl.metrics import ANOMALY, CLASSIFICATION, REGRESSION
from dendrite_automl.run import Run


class _Compressed(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: their arguments, the search, and the network that is kept of it."""

    def __init__(
        self,
        budget: str = "2k-params",
        *,
        device: str | None = None,
        runtime: str = RUNTIMES[0],
        space: str | None = None,
        set_knobs: list[str] | None = None,
        trials: int = 40,
        seconds: float | None = None,
        epochs: int | None = None,
        replicates: int = 4,
        confirm: int = 8,
        finish: str = "auto",
        arms: str = "dendritic,baseline",
        metric: str | None = None,
        int8: bool = False,
        test_size: float = 0.2,
        workers: int | None = None,
        accelerator: str = "auto",
        out: str | Path | None = None,
        random_state: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.budget = budget
        self.device = device
        self.runtime = runtime
        self.space = space
        self.set_knobs = set_knobs
        self.trials = trials
        self.seconds = seconds
        self.epochs = epochs
        self.replicates = replicates
        self.confirm = confirm
        self.finish = finish
        self.arms = arms
        self.metric = metric
        self.int8 = int8
        self.test_size = test_size
        self.workers = workers
        self.accelerator = accelerator
        self.out = out
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _seed(self) -> int:
        return 0 if self.random_state is None else int(self.random_state)

    def _cut(self, examples: int, least: int, labels: NDArray[Any] | None = None) -> tuple[Any, Any]:
        """Indices of the rest and of the test split, which has at least so many examples."""
        held = max(round(self.test_size * examples), least)
        return tuple(train_test_split(np.arange(examples), test_size=held, stratify=labels, random_state=self._seed))

    def _search(self, data: dict[str, Any], problem: str, normal: str | None = None) -> None:
        """Search on arrays named as in an .npz, and keep the most accurate network.

        Raises:
            ValueError: the data is unsuitable, or an argument is wrong.
        """
        with contextlib.ExitStack() as stack:
            folder = self.out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
            if not self.verbose:
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            try:
                run = search(
                    data=data,
                    task_kind=problem,
                    normal=normal,
                    budget=self.budget,
                    device=self.device,
                    runtime=self.runtime,
                    space=self.space,
                    set_knobs=self.set_knobs,
                    trials=self.trials if self.seconds is None else None,
                    seconds=self.seconds,
                    epochs=self.epochs,
                    replicates=self.replicates,
                    confirm=self.confirm,
                    finish=self.finish,
                    arms=self.arms,
                    metric=self.metric,
                    workers=self.workers,
                    accelerator=self.accelerator,
                    seed=self._seed,
                    out=folder,
                )
            except (RequestError, BudgetUnreachable) as error:
                raise ValueError(str(error)) from error
            self._keep(run)
        self.run_path_ = None if self.out is None else run.path

    def _keep(self, run: Run) -> None:
        artifact = Path(run.best().path)
        self.front_ = run.front
        self.model_ = (artifact / "model.onnx").read_bytes()
        self.model_int8_ = (artifact / "model.int8.onnx").read_bytes()
        self.description_: dict[str, Any] = json.loads((artifact / "artifact.json").read_text(encoding="utf-8"))

    def _outputs(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Of the network, [N, outputs]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)  # noqa: N806
        scale = self.description_["preprocessing"]["standardise"]
        shape = (1, -1, *(1,) * (X.ndim - 2))
        mean, std = (np.asarray(scale[key], np.float32).reshape(shape) for key in ("mean", "std"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # more would only spin on networks this small
        model = self.model_int8_ if self.int8 else self.model_
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        scaled = (X - mean) / std
        # one by one: the artifact's batch is fixed at 1
        return np.concatenate([session.run(None, {"input": x[None]})[0] for x in scaled]).astype(np.float64)

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's protocol: results depend on chance, as which trial ends first decides what is proposed next."""
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags


class CompressedClassifier(ClassifierMixin, _Compressed):  # type: ignore[misc]
    """The most accurate network within a budget that a search finds, as an estimator.

    `fit` holds out a test split of its data (for the artifact's card; the network is chosen on a validation split, which the
    search holds out of the rest), searches, and keeps the chosen network as ONNX; `predict` runs that in onnxruntime.

    Args:
        budget: upper limits, as for `search`.
        device, runtime, space, set_knobs, trials, seconds, epochs, replicates, confirm, finish, arms, metric: as for `search`.
        workers, accelerator: as for `search`.
        int8: predict with the int8 file instead of the float32 one.
        test_size: share of the examples to hold out as the test split.
        out: folder of the run, which must not exist; None: a temporary one, deleted after `fit`.
        random_state: seed of the splits and the search, a whole number.
        verbose: let the search report its progress on stderr.

    Attributes:
        classes_: labels, in the order of the columns of `predict_proba`.
        n_features_in_: number of features; of channels if inputs have more than two axes.
        front_: the front, a pandas.DataFrame; its `artifact` paths no longer exist if `out` is None.
        model_: the chosen network as the bytes of an ONNX file; `model_int8_`: those of the int8 file.
        description_: the content of its artifact.json.
        run_path_: the run folder; None if it was temporary.
    """

    def fit(self, X: Any, y: Any) -> CompressedClassifier:  # noqa: N803
        """Search for the network.

        Args:
            X: [N, features], [N, channels, time] or [N, channels, height, width].
            y: [N], integers or strings.

        Raises:
            ValueError: the data is unsuitable, or an argument is wrong.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True, ensure_min_samples=2)  # noqa: N806
        check_classification_targets(y)
        self.classes_, labels = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"fit: expected at least 2 classes, got one class: {self.classes_[0]!r}")
        rest, test = self._cut(len(labels), len(self.classes_), labels)
        names = [str(name) for name in self.classes_.tolist()]
        data = {"X_train": X[rest], "y_train": labels[rest], "X_test": X[test], "y_test": labels[test], "classes": names}
        self._search(data, CLASSIFICATION)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Logits [N, classes]; for two classes [N], the second's minus the first's."""
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Softmax of the logits, [N, classes]. It is not calibrated."""
        logits = self._outputs(X)
        likely = np.exp(logits - logits.max(1, keepdims=True))
        return likely / likely.sum(1, keepdims=True)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The class of the largest logit, [N]."""
        logits = self._outputs(X)
        said: NDArray[Any] = self.classes_[logits.argmax(1)]
        return said

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's protocol: its checks have tiny data sets, which give poor results."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags


class CompressedRegressor(RegressorMixin, _Compressed):  # type: ignore[misc]
    """As `CompressedClassifier`, for measured values: the network with the highest R^2 within a budget.

    Args and attributes: as there, but for `classes_`.
    """

    def fit(self, X: Any, y: Any) -> CompressedRegressor:  # noqa: N803
        """Search for the network.

        Args:
            X: [N, features], [N, channels, time] or [N, channels, height, width].
            y: [N], numbers.

        Raises:
            ValueError: the data is unsuitable, or an argument is wrong.
        """
        X, y = validate_data(  # noqa: N806
            self, X, y, dtype=np.float32, allow_nd=True, ensure_min_samples=2, y_numeric=True
        )
        rest, test = self._cut(len(y), 1)
        values = np.asarray(y, np.float64)
        self._search({"X_train": X[rest], "y_train": values[rest], "X_test": X[test], "y_test": values[test]}, REGRESSION)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Values, [N], in the unit of y."""
        outputs = self._outputs(X)
        target = self.description_["target"]
        values: NDArray[np.float64] = target["mean"] + target["std"] * outputs[:, 0]
        return values

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's protocol: its checks have tiny data sets, which give poor results."""
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags


class CompressedDetector(OutlierMixin, _Compressed):  # type: ignore[misc]
    """As `CompressedClassifier`, for anomalies: a network within a budget that learns from normal examples.

    Args and attributes: as there, but for `classes_`, and:
        offset_: the negative threshold: `decision_function` is `score_samples` minus this.
    """

    def fit(self, X: Any, y: Any = None, *, anomalies: Any = None) -> CompressedDetector:  # noqa: N803
        """Search for the network.

        Args:
            X: [N, features], [N, channels, time] or [N, channels, height, width], of normal examples.
            y: not used, as usual for detectors.
            anomalies: [M, …] known ones: half of them are for choosing networks and the threshold, the others are held out for
                the artifact's card. Without them, distorted examples of X take their place.

        Raises:
            ValueError: the data is unsuitable, or an argument is wrong.
        """
        X = validate_data(self, X, dtype=np.float32, allow_nd=True, ensure_min_samples=2)  # noqa: N806
        rest, test = self._cut(len(X), 1)
        data = {"X_train": X[rest], "X_test": X[test]}
        if anomalies is not None:
            known = validate_data(self, anomalies, dtype=np.float32, allow_nd=True, ensure_min_samples=2, reset=False)
            train, val = train_test_split(X[rest], test_size=max(1, round(self.test_size * len(rest))), random_state=self._seed)
            data = {"X_train": train, "X_val": np.concatenate([val, known[::2]])}
            data["X_test"] = np.concatenate([X[test], known[1::2]])
            data["y_val"] = np.repeat(["normal", ANOMALY], [len(val), len(known[::2])])
        data["y_train"] = np.full(len(data["X_train"]), "normal")
        data["y_test"] = np.repeat(["normal", ANOMALY], [len(test), len(data["X_test"]) - len(test)])
        self._search(data, ANOMALY, "normal")
        self.offset_ = -float(self.description_["test"]["int8" if self.int8 else "float32"]["threshold"])
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """How normal examples are, [N]: minus the network's score."""
        return -self._outputs(X)[:, 0]

    def decision_function(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """[N], negative for anomalies."""
        scores = self.score_samples(X)
        found: NDArray[np.float64] = scores - self.offset_
        return found

    def predict(self, X: Any) -> NDArray[np.int64]:  # noqa: N803
        """1 for normal examples, -1 for anomalies, [N]."""
        return np.where(self.decision_function(X) < 0, -1, 1)
