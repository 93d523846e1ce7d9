"""The classes of a dataset against those that a run knows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mnist_flax.data.dataset import Dataset, Split, fingerprint
from mnist_flax.data.survey import surveyed
from mnist_flax.errors import UserError

_NAMED = 5  # classes in a message


def with_classes_of(
    dataset: Dataset,
    class_names: tuple[str, ...],
    field: str,
    report: Callable[[str], None] = print,
) -> Dataset:
    """Returns a dataset with its labels numbered as a run's are, matched by the classes' names.

    Args:
      dataset: is returned as it is where its classes are the run's, in their order.
      class_names: that the run knows.
      field: what to change, for the message.
      report: gets a line before data that are streamed are read for their new fingerprint.

    Raises:
      UserError: the classes are others.
    """
    if dataset.class_names == class_names:
        return dataset
    if sorted(dataset.class_names) != sorted(class_names):
        raise UserError(
            f"{dataset.source}: its classes are {_some(dataset.class_names, class_names)}; the run "
            f"knows {_some(class_names, dataset.class_names)}. Give them the same names, or choose "
            f"other data with {field}"
        )
    table = np.array([class_names.index(name) for name in dataset.class_names], np.int32)

    def renumbered(split: Split) -> Split:
        return Split(split.images, table[split.labels])

    train, evaluation = renumbered(dataset.train), renumbered(dataset.eval)
    select = None if dataset.select is None else renumbered(dataset.select)
    note = f"{dataset.source}: the classes lie in another order than the run's; matched by name."
    dataset = replace(
        dataset,
        train=train,
        eval=evaluation,
        select=select,
        class_names=class_names,
        notes=(*dataset.notes, note),
    )
    if dataset.streamed:
        return surveyed(dataset, report)
    return replace(dataset, fingerprint=fingerprint(train, evaluation, class_names, select))


def lacking(dataset: Dataset) -> tuple[str, ...]:
    """Returns notes on classes that cannot be learnt: for those who train on the dataset."""
    names = dataset.class_names
    trained, evaluated, chosen = (
        {names[label] for label in np.unique(split.labels)}
        for split in (dataset.train, dataset.eval, dataset.choosing)
    )
    evaluated |= chosen
    notes: tuple[str, ...] = ()
    if unseen := tuple(name for name in names if name in evaluated - trained):
        notes += (
            f"No image to train on is of the classes {_some(unseen, ())}, which are evaluated: "
            "they cannot be learnt. See config.data.train_split.",
        )
    if len(trained) == 1:
        notes += (
            f"All images to train on are of one class, {min(trained)!r}: whatever is shown, that "
            "will be answered. See config.data.train_split.",
        )
    return notes


def _some(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    """Returns a few names for a message, those first that the others lack."""
    ordered = sorted(names, key=lambda name: name in others)
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(map(repr, ordered[:_NAMED]))}{more}"
