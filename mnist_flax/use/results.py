"""What a run answers in Python: predictions of several pictures, an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from mnist_flax.core.evaluation import Evaluation
from mnist_flax.data.pictures import Fitted
from mnist_flax.use.prediction import Prediction, require_classes
from mnist_flax.workdir.known_images import Known


class PredictionList(Sequence[Prediction]):
    """What a network says of several pictures, in their order.

    Attributes:
      outputs: of task.predict by name, [N, …]: all pictures at once.
      class_names: of a classification's classes; () of other tasks.
    """

    def __init__(
        self,
        files: Sequence[str],
        pictures: Sequence[Fitted],
        outputs: Mapping[str, np.ndarray],
        class_names: tuple[str, ...],
    ) -> None:
        """Takes what was given, what the network saw, and what it said of it."""
        self._files, self._pictures = files, pictures
        self.outputs, self.class_names = outputs, class_names

    @property
    def classes(self) -> np.ndarray:
        """The most probable class of each, int32 [N]. Raises UsageError if none is predicted."""
        require_classes(self.class_names, self.outputs)
        return self.outputs["classes"]

    @property
    def probabilities(self) -> np.ndarray:
        """Of each all classes', float32 [N, K]. Raises UsageError likewise."""
        require_classes(self.class_names, self.outputs)
        return self.outputs["probabilities"]

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> "PredictionList": ...
    def __getitem__(self, place: int | slice) -> "Prediction | PredictionList":
        outputs = {name: values[place] for name, values in self.outputs.items()}
        if isinstance(place, slice):
            parts = self._files[place], self._pictures[place]
            return PredictionList(*parts, outputs, self.class_names)
        return Prediction(self._files[place], self._pictures[place], outputs, self.class_names)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"[{shown}{', …' if len(self) > 3 else ''}] ({len(self):,} pictures)"


@dataclass(frozen=True, repr=False)
class RunEvaluation(Evaluation):
    """How good a run is: `evaluation['accuracy']`, and more of its `means`.

    Attributes:
      step: of the save that was judged.
      checkpoint: the save.
      dataset: the name of the data; '' of arrays.
      known: how many of the images the run was trained on, or chosen by.
    """

    step: int
    checkpoint: Path
    dataset: str
    known: Known

    def __getitem__(self, name: str) -> float:
        return self.means[name]

    def row(self) -> dict[str, Any]:
        """Returns what --mode=eval prints as JSON; arrays have no 'dataset'."""
        dataset = {"dataset": self.dataset} if self.dataset else {}
        return {
            **self.means,
            "global_step": self.step,
            "examples": self.examples,
            "checkpoint": str(self.checkpoint),
            **dataset,
            **self.known.row(),
        }

    def __repr__(self) -> str:
        shown = {name: f"{value:.4f}" for name, value in self.means.items()}
        shown |= {"examples": f"{self.examples}"}
        shown |= {name: f"{count}" for name, count in self.known.row().items()}
        return f"RunEvaluation({', '.join(f'{name}={text}' for name, text in shown.items())})"
