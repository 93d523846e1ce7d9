"""The data of a run, loaded for whoever uses its network without training it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from mnist_flax import data
from mnist_flax.config import overridden
from mnist_flax.config.validation import validate
from mnist_flax.data import handed_in
from mnist_flax.data.classes import with_classes_of
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UserError
from mnist_flax.use.restore import Restored, refuse_other_splits
from mnist_flax.workdir.known_images import TRAINED_ON_FILE


def with_eval_split(restored: Restored, split: str) -> Restored:
    """Returns the same network, to be judged on another split of its data: 'train[:1000]'.

    Raises:
      UsageError: there is no such split, or it would hold other images than the run's.
    """
    if split == restored.config.data.eval_split:
        return restored
    changes = {"data.eval_split": split}
    if restored.own_data:
        refuse_other_splits(restored.config, changes)
    config, _ = overridden(restored.config, changes)
    validate(config, others=(lambda c: data.check(c.data),))
    return replace(restored, config=config, own_data=False)


def load_data(restored: Restored, report: Callable[[str], None], given: Any = None) -> Dataset:
    """Loads what config.data names; nothing stands in for data that are missing.

    Where a run has mixed its splits, the same data are mixed again and other data are not. Labels
    are matched by the names of their classes, whatever the order of these. What a run evaluates
    besides is left out.

    Args:
      restored: its config names the data.
      report: as data.load takes it.
      given: data that are handed in, as to train(); None for those that are named.

    Raises:
      UserError: the data are missing, or the run's own are not what they were; pictures of another
        size, or other classes than the run's; or the mixed data of a run in another order, in which
        trained images would be judged.
    """
    config, trained_on = restored.config.data.copy_and_resolve_references(), restored.trained_on
    config.extra_eval_splits = ConfigDict()
    if given is not None:
        config.update(data_dir=None, stream=False, fallback="mnist_sample")
    else:
        config.fallback = "none"
        unnamed = config.data_dir is None and config.name == trained_on["name"]
        if trained_on.get("handed_in") and unnamed:
            size = ", ".join(map(str, restored.image_shape))
            raise UserError(
                handed_in.missing(
                    f"{restored.checkpoint} is of a run",
                    "restore(workdir).evaluate(images, labels) judges it: images uint8 [N, "
                    f"{size}], labels whole numbers [N], 0 to {len(restored.class_names) - 1}",
                )
            )
    dataset = data.load(config, report, given)
    if (restored.checkpoint.parents[2] / TRAINED_ON_FILE).exists():
        # Whoever judges counts the very images (workdir/known_images.py) and says so.
        notes = tuple(note for note in dataset.notes if note != dataset.overlap)
        dataset = replace(dataset, notes=notes)
    if config.resplit is not None and dataset.fingerprint != trained_on["fingerprint"]:
        if dataset.name == trained_on["name"]:
            raise UserError(
                f"{dataset.source}: not the images that this run has mixed (config.data.resplit="
                f"{config.resplit}), or not in their order: images that it was trained on would be "
                f"judged. It was trained on: {trained_on['source']}."
            )
        config.resplit = None
        dataset = data.load(config, report, given)
    elif restored.own_data and dataset.fingerprint != trained_on["fingerprint"]:
        todo = "Hand those in."
        if dataset.data_dir:
            todo = (
                "Put those back, or have it judged on these with config.data.data_dir="
                f"{dataset.data_dir}"
            )
        raise UserError(
            f"{dataset.source}: not the data of the run in {restored.checkpoint}, which had "
            f"{trained_on['source']}. {todo}"
        )
    shape, classes = dataset.eval.images.shape[1:], len(dataset.class_names)
    if shape != restored.image_shape or classes != len(restored.class_names):
        raise UserError(
            f"{dataset.source}: images {list(shape)} of {classes} classes; the network in "
            f"{restored.checkpoint} takes {list(restored.image_shape)} and knows "
            f"{len(restored.class_names)}. Choose other data with config.data.…"
        )
    return with_classes_of(dataset, restored.class_names, "config.data.…", report)
