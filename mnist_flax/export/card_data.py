"""What a model card says of the data: what the network answers to them, and where they are from."""

from collections.abc import Mapping, Sequence
from typing import Any

from mnist_flax.core.evaluation import Evaluation
from mnist_flax.data.augment import EXTENDED_PARTS
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.sample import NAME as SAMPLE
from mnist_flax.export.card_network import gives_logits
from mnist_flax.export.licences import data_licence
from mnist_flax.export.markdown import table_of
from mnist_flax.use.calibration import BINS
from mnist_flax.use.restore import Restored


def evaluation(
    restored: Restored,
    dataset: Dataset,
    result: Evaluation,
    calibration_error: float | None,
    known: Sequence[str],
) -> str:
    """Says how good it is, and on which images."""
    same = dataset.fingerprint == restored.trained_on["fingerprint"]
    others = "the run's own data" if same else "other data or splits than the run's own"
    metrics, best = restored.task.metrics, restored.task.best
    lines = [
        (_measure(restored, name), format(result.means[name], metrics[name].format))
        for name in sorted(metrics, key=lambda name: name != best)  # the best one's first
        if name in result.means
    ]
    if calibration_error is not None:
        measure = f"expected calibration error, {BINS} bins (Guo et al. 2017)"
        lines.append((measure, f"{calibration_error:.4f}"))
    table = table_of(("measure", "value"), lines)
    table = "\n\n".join([table, *known])
    return (
        f"On `{restored.config.data.eval_split}` of {dataset.name}: {result.examples:,} images, "
        f"{others}, SHA-256 `{dataset.fingerprint}` of both splits.\n\n{table}"
    )


def _measure(restored: Restored, name: str) -> str:
    known = gives_logits(restored) and name == "loss"
    return "loss, softmax cross-entropy in nats" if known else name


def data(restored: Restored, dataset: Dataset, config: Mapping[str, Any]) -> str:
    """Says what it was trained on, and under which licence that is."""
    trained_on = restored.trained_on
    name, fingerprint = trained_on["name"], trained_on["fingerprint"]
    fell_back = config["name"] == "mnist" and name == SAMPLE
    train, evaluation = (
        ("train", "test") if fell_back else (config["train_split"], config["eval_split"])
    )
    same = dataset.fingerprint == fingerprint
    size = f", {len(dataset.train.labels):,} images" if same else ""
    rows = [
        ("name", name),
        ("trained on", f"`{train}`{size}"),
        ("kept for evaluation", f"`{evaluation}`"),
        ("SHA-256 of both splits", f"`{fingerprint}`"),
        ("licence", data_licence(trained_on)),
    ]
    if config["select_split"]:
        rows.insert(2, ("chose the best save", f"`{config['select_split']}`"))
    if config["resplit"] is not None:
        mixed = "the two were put together, mixed, and cut at their sizes again, with the seed"
        rows.append(("mixed", f"{mixed} {config['resplit']}: neither is the split of that name"))
    if config["extended"]:
        parts = "each image as it is, shifted by a pixel to four sides, and flipped left to right"
        rows.append(("extended", f"{EXTENDED_PARTS} times as many images to train on: {parts}"))
    if fell_back:
        rows.append(("fallback", "mnist was asked for and was not to be had: this stood in for it"))
    return table_of(("", ""), rows)
