"""A run, asked from Python: what it says of pictures, how good it is, what it draws, its rows."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, overload

import numpy as np

from mnist_flax.config.paths import expanded
from mnist_flax.core.sampling import sample
from mnist_flax.data.preparation import Preparation
from mnist_flax.errors import UsageError
from mnist_flax.use.evaluation import evaluate_restored, find_measure
from mnist_flax.use.given import read_given, split_of
from mnist_flax.use.prediction import Prediction, answered_classes, predict
from mnist_flax.use.restore import Restored
from mnist_flax.use.restore import restore as restore_network
from mnist_flax.use.results import PredictionList, RunEvaluation
from mnist_flax.use.run_data import load_data, with_eval_split
from mnist_flax.workdir.columns import columns, rows_of
from mnist_flax.workdir.known_images import count_known
from mnist_flax.workdir.rows import read_rows


@dataclass(frozen=True, eq=False, repr=False)
class RestoredRun(Restored):
    """A run out of its folder, at one of its saves.

    What there is to say next to an answer, as the command says it, goes to stderr.

    Attributes:
      workdir: its folder.
    """

    workdir: Path = field(default=Path())

    @overload
    def predict(
        self, pictures: str | os.PathLike[str], *, preparation: Preparation | None = None
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        pictures: list[Any] | tuple[Any, ...],
        *,
        preparation: Preparation | None = None,
    ) -> PredictionList: ...
    @overload
    def predict(
        self, pictures: np.ndarray | Iterable[Any], *, preparation: Preparation | None = None
    ) -> Any: ...
    def predict(self, pictures: Any, *, preparation: Preparation | None = None) -> Any:
        """Asks the network what is on pictures.

        Files are prepared as --mode=predict prepares them, and so are arrays of another size than
        the network's. An array of its own size is taken as it is, as the training data are; that
        it lies on another ground than these is said in its `warning`.

        Args:
          pictures: the name of a PNG or JPEG file; pixels uint8 [H, W], [H, W, C], [N, H, W] or
            [N, H, W, C]; or several names, or arrays of one picture each.
          preparation: what is done to all of them, in the place of the run's own: AS_IS is
            --center=false, DIGIT is --center=true (data/preparation.py). `run.preparation` has
            arrays of the network's own size prepared, too.

        Returns:
          A Prediction of one picture; a PredictionList of several.

        Raises:
          UsageError: the task has nothing to say of pictures; or what is given is none.
          UserError: a file is missing or damaged, or a picture is empty.
        """
        self._require("predict")
        given = read_given(pictures, self.image_shape, self.preparation, preparation)
        outputs = predict(self, np.stack([picture.image for picture in given.pictures]))
        names = answered_classes(self)
        answers = PredictionList(given.files, given.pictures, outputs, names)
        return answers[0] if given.one else answers

    @overload
    def evaluate(self, *, split: str | None = None) -> RunEvaluation: ...
    @overload
    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> RunEvaluation: ...
    def evaluate(
        self, images: Any = None, labels: Any = None, *, split: str | None = None
    ) -> RunEvaluation:
        """Judges the network on all images of a split: the run's own, another one, or arrays.

        Args:
          images: uint8 [N, H, W, C] of the network's own size, or [N, H, W]; taken as they are.
          labels: whole numbers [N], the places of the classes in class_names.
          split: of the run's data, 'train[:1000]'; by default the one that the recipe evaluates.

        Raises:
          UsageError: the task cannot be evaluated; there is no such split; the arrays do not fit.
          UserError: the data are missing, or not what they were.
        """
        self._require("eval")
        arrays = None
        if (images is None) != (labels is None) or (images is not None and split is not None):
            raise UsageError("evaluate: takes a split, or images and labels, or nothing.")
        if images is not None:
            arrays = split_of(images, labels, self.image_shape, self.class_names)
        judged, name, measure = self if split is None else with_eval_split(self, split), "", None
        if arrays is None or self.task.measure:  # what is measured may need the run's data, too
            dataset = load_data(judged, _say)
            if arrays is None:
                name, arrays = dataset.name, dataset.eval
                _say(*dataset.notes)
            measure = find_measure(self.task, self.config, dataset, arrays.images)
            _say(*filter(None, [measure.told]))
        result = evaluate_restored(judged, arrays, measure)
        known = count_known(self.workdir, arrays.images, chosen=self.chosen)
        _say(*known.told())
        own = {each.name: getattr(result, each.name) for each in fields(result)}
        step = int(self.state.step)
        return RunEvaluation(
            **own, step=step, checkpoint=self.checkpoint, dataset=name, known=known
        )

    def sample(self, count: int = 64) -> np.ndarray:
        """Draws pictures, uint8 [count, H, W, C]: those of --mode=sample, always the same.

        Raises:
          UsageError: the task does not draw.
        """
        self._require("sample")
        if count < 1:
            raise UsageError(f"sample: count={count}; draw at least one.")
        config = self.config
        return sample(self.task, self.state.variables, config.seed, count, config.batch_size)

    def rows(self, kind: str) -> dict[str, np.ndarray]:
        """Returns rows of metrics.jsonl as columns, for pandas.DataFrame and polars.DataFrame.

        Args:
          kind: the split, 'train', 'eval' or 'select'; or an event, 'epoch', 'resumed', ….

        Returns:
          Each field as an array [N], in the order of the steps, as of now, also while the run
          trains; workdir/columns.py says of what types.

        Raises:
          UsageError: there are no such rows; the message lists which there are.
          UserError: the file is damaged.
        """
        return columns(rows_of(read_rows(self.workdir), kind))

    def _require(self, mode: str) -> None:
        able = self.task.modes
        if mode not in able or (mode == "sample" and self.task.sample is None):
            raise UsageError(
                f"{mode}: makes no sense for the task {self.config.task.name!r}. It can "
                f"{', '.join(able) or 'be trained alone'}."
            )

    def __repr__(self) -> str:
        step, task = int(self.state.step), self.config.task.name
        return f"RestoredRun({str(self.workdir)!r}, step {step:,}, {task})"


def restore(
    workdir: str | os.PathLike[str],
    which: str | int = "latest",
    overrides: Mapping[str, Any] | None = None,
) -> RestoredRun:
    """Restores a run with the model, seed and data of its own folder.

    Args:
      workdir: its folder; nothing in it is changed, and it may be training meanwhile.
      which: 'latest', 'best' or a step.
      overrides: of `data.*`, `batch_size` and `task.judge`: {'data.data_dir': 'elsewhere'}.

    Raises:
      UsageError: there is no such save; another field is overridden; a wrong value.
      UserError: the folder holds no run, or the save is damaged.
    """
    folder = expanded(os.fspath(workdir), "workdir")
    network = restore_network(folder, str(which), overrides or {})
    parts = {each.name: getattr(network, each.name) for each in fields(network)}
    return RestoredRun(**parts, workdir=folder)


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
