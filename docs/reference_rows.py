"""Rows of metrics.jsonl, for docs/reference/files.md: columns, metrics and events.

Written by hand, as the files are; tests/test_reference.py holds them against runs and the code.
"""

from typing import NamedTuple

from reference_markdown import code, table

from mnist_flax.core.bad_steps import SKIPPED
from mnist_flax.core.task import Metric
from mnist_flax.core.update import NORMS
from mnist_flax.tasks import autoencoder, classification, gan
from mnist_flax.workdir.rows import METRICS_FILE

# Columns of rows, with their meaning. Of every row:
ALL = {
    "step": "how many steps the state has behind it",
    "dataset": "the name of the data",
}
TRAIN = {
    "learning_rate": "that the last update used",
    "steps_per_second": "since the row before",
    "images_per_second": "likewise",
}
EVALUATION = {
    "examples": "how many images were evaluated",
    "seconds": "that it took",
}
# What a task's rows have; where they do not stand in training and evaluation rows alike, where.
METRICS: dict[str, dict[str, Metric]] = {
    "classification": dict(classification.METRICS),
    "autoencoder": dict(autoencoder.METRICS),
    "gan": dict(gan.METRICS),
}
MEANINGS = {
    "loss": "softmax cross-entropy of the labels as they are, in nats",
    "accuracy": "the share that is right",
    "negative_elbo": "negative evidence lower bound, in nats an image: the sum of the next two",
    "reconstruction": "cross-entropy of all pixels, in nats",
    "kl": "KL divergence of the latents from the standard normal, in nats",
    "real_loss": "the discriminator's cross-entropy on images, in nats",
    "fake_loss": "likewise on drawings",
    "generator_loss": "the generator's cross-entropy, in nats",
    "real_estimate": "the discriminator's probability that an image is one",
    "fake_estimate": "its probability that a drawing is an image",
}
OF_GAN = {
    "train": ("real_loss", "fake_loss", "generator_loss", "discriminator_learning_rate"),
    "evaluation": ("real_estimate", "fake_estimate"),
}
# (where, which field asks for them) of columns that not every run has.
ASKED = {
    **dict.fromkeys(NORMS, ("train, epoch", "`log_norms`")),
    SKIPPED: ("train, epoch", "`on_bad_step='skip'`"),
    "learnt_<metric>": ("evaluations", "`ema_decay`"),
    "discriminator_learning_rate": ("train", "task `gan`"),
    **dict.fromkeys(
        (
            *("frechet_distance", "frechet_floor"),
            *("confident_share", "confident_share_of_images"),
            *("nearest_train", "nearest_train_of_images", "class_share_<class>"),
        ),
        ("evaluations", "`task.judge`"),
    ),
}
ASKED_MEANINGS = {
    "gradient_norm": "of the gradient over all parameters, before clipping: the mean over steps",
    "update_norm": "of what a step changes, likewise",
    SKIPPED: "how many steps were left out",
    "learnt_<metric>": "of the parameters as they are learnt; the plain name is the average's",
    "discriminator_learning_rate": "as `learning_rate` is the generator's",
    "frechet_distance": "between the judge's features of drawings and of images",
    "frechet_floor": "likewise of training images: about the best there can be",
    "confident_share": "the share of drawings that the judge is sure of",
    "confident_share_of_images": "likewise of images",
    "nearest_train": "median distance of drawings to the nearest training image",
    "nearest_train_of_images": "likewise of images; drawings far below it are copies",
    "class_share_<class>": "the share of drawings that the judge takes for that class",
}


class Event(NamedTuple):
    """A row that has `event` for `split`: what it says, and what it has besides `message`."""

    what: str
    columns: tuple[str, ...] = ()


EVENTS = {
    "started": Event("the run begins"),
    "resumed": Event("it goes on from a save; `changed` has fields with old and new", ("changed",)),
    "init_from": Event("what was taken of another run's parameters, and what not"),
    "taken": Event(
        "a network of another run that this one starts with, an ensemble's member or a teacher; "
        "`digest` is that of its variables",
        ("digest",),
    ),
    "data": Event("what it is trained and evaluated on, and what was assumed of it"),
    "fallback": Event("the sample stands in for data that were not to be had"),
    "known_images": Event("images of `select_split` or of an extra split are trained on, too"),
    "measure": Event("what drawings are judged by; `digest` is the judge's", ("digest",)),
    "bfloat16": Event("whether it is fast here"),
    "slow_layer": Event("a layer that keeps steps out of XLA's loop"),
    "epoch": Event(
        "an epoch ends: its number, its metrics as in training rows, `loss_sum` of its batches, "
        "and those of its last batch seen once more",
        ("epoch", "<metric>", "loss_sum", "last_batch_<metric>"),
    ),
    "probabilities": Event(
        "with `log_probabilities`: the last batch's", ("probabilities", "labels")
    ),
    "predictions": Event("the first twenty, at the end", ("classes", "labels")),
    "lost_classes": Event("classes that are never predicted"),
    "flat_loss": Event("the loss has not fallen in the first epoch that ends after 100 steps"),
    "no_rate": Event("a learning rate that no row can show", ("rates",)),
    "not_finite": Event("NaN or infinity in the evaluation of an extra split"),
    "plateau": Event("the learning rate is lowered, by `plateau_patience`"),
    "early_stop": Event("the run ends, by `early_stopping_patience`"),
    "saved": Event("the first save of the run"),
    "damaged_checkpoint": Event("a save that was moved aside"),
    "damaged_event_file": Event("an event file of TensorBoard's that could not be read"),
    "writer_fault": Event("what one of `writers` has raised", ("writer",)),
    "diverged": Event(
        "NaN or infinity within these steps: the run ends",
        ("first_step", "last_step", "learning_rate"),
    ),
    "stopped": Event("by a signal; the state is saved"),
    "finished": Event("the last step is done, evaluated and saved"),
}


def row_parts() -> tuple[str, ...]:
    """Returns the part of the page that is about rows, piece by piece."""
    return (
        f"## Rows of {METRICS_FILE}\n\n{_ROWS}",
        table(("rows", "column", "meaning"), _columns()),
        f"### Metrics of a task\n\n{_MEANS}",
        table(("task", "column", "better", "meaning"), _metrics()),
        "### Columns that a run asks for",
        table(
            ("column", "rows", "asked for by", "meaning"),
            [(code(name), *where, ASKED_MEANINGS[name]) for name, where in ASKED.items()],
        ),
        f"### Events\n\n{_EVENTS}",
        table(
            ("`event`", "what it says", "further columns"),
            [(code(n), e.what, ", ".join(map(code, e.columns))) for n, e in EVENTS.items()],
        ),
    )


_ROWS = (
    "A JSON object a line, on the disk before the save of its step. `split` says what a row is of: "
    "`train`; `eval`, or `select` where `data.select_split` is set; or the name of an extra split. "
    "Other rows have `event`. In Python: `restore(workdir).rows('train')`."
)
_MEANS = (
    "Means over examples, each counted once. Training rows have those of the steps since the row "
    "before, each batch before its update and with dropout on."
)
_EVENTS = "Each has `step`, `event`, `message` (what the console said) and `dataset`."


def _columns() -> list[tuple[str, str, str]]:
    return [
        (where, code(name), meaning)
        for where, columns in (
            ("all", ALL),
            ("train", TRAIN),
            ("eval, select, extra splits", EVALUATION),
        )
        for name, meaning in columns.items()
    ]


def _metrics() -> list[tuple[str, str, str, str]]:
    rows = []
    for task, metrics in METRICS.items():
        for name, metric in metrics.items():
            where = {"train": " (training)", "evaluation": " (evaluations)"}
            only = [text for rows_of, text in where.items() if name in OF_GAN[rows_of]]
            better = "larger" if metric.larger_is_better else "smaller"
            better = "" if task == "gan" else better
            rows.append((code(task), code(name), better, MEANINGS[name] + "".join(only)))
    return rows
