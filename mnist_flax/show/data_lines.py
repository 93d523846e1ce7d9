"""What is said of a run's data, a line each."""

import numpy as np

from mnist_flax.data.dataset import Dataset

_SHOWN_CLASSES = 12


def data_line(dataset: Dataset) -> str:
    """Says how many images there are, and where they come from."""
    train, evaluation = len(dataset.train.labels), len(dataset.eval.labels)
    size = f"{train:,} images to train, {evaluation:,} to evaluate"
    if dataset.select is not None:
        size += f", {len(dataset.select.labels):,} to choose the best save"
    return f"Data: {dataset.name}, {size}, from {dataset.source}."


def extra_lines(dataset: Dataset) -> list[str]:
    """Says what is evaluated as well, a line for each."""
    return [
        f"Evaluated besides: {name}, {len(extra.split.labels):,} images, {extra.source}."
        for name, extra in dataset.extra.items()
    ]


def shape_line(dataset: Dataset) -> str:
    """Says of what shape the images are, and of which classes those that are trained on."""
    shape = "×".join(map(str, dataset.train.images.shape[1:]))
    names = dataset.class_names
    counts = np.bincount(dataset.train.labels, minlength=len(names)).tolist()
    shown = [
        f"{name} ({count:,})"
        for name, count in list(zip(names, counts, strict=True))[:_SHOWN_CLASSES]
    ]
    if more := len(names) - len(shown):
        shown.append(f"and {more:,} more")
    return (
        f"Images uint8 {shape}. {len(names):,} classes, and how many to train of each: "
        f"{', '.join(shown)}."
    )
