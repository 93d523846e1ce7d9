"""What a save says apart from its arrays: where the run stood, of what config, data and machine."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mnist_flax.data.dataset import Dataset
from mnist_flax.workdir.environment import environment


def metadata_of(
    step: int,
    evaluation: Mapping[str, float] | None,
    config: ConfigDict,
    dataset: Dataset,
    rows: int,
    devices: int = 1,
) -> dict[str, Any]:
    """Returns what is saved with a state, as JSON holds it; checkpoints.py adds the digests.

    Args:
      step: of the state.
      evaluation: its metrics; None where it was not evaluated.
      config: of the run.
      dataset: of the run.
      rows: how many metrics.jsonl holds.
      devices: how many the run is on.
    """
    return {
        "step": step,
        "evaluation": None if evaluation is None else dict(evaluation),
        "config": config.to_dict(),
        "dataset": describe_data(dataset),
        "environment": environment(config.compute_dtype, devices),
        "rows": rows,
    }


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Returns what a run keeps of its data: enough to recognise them, and to predict."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.train.images.shape[1:]),
        "data_dir": dataset.data_dir,
        "preparation": dataset.preparation._asdict(),
        "handed_in": dataset.handed_in,
        "extra_eval_splits": {
            name: {"source": extra.source, "fingerprint": extra.fingerprint}
            for name, extra in dataset.extra.items()
        },
    }
