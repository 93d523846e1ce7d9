"""What is wrong with a network that trains and does not learn: pure functions of its figures."""

import math
from collections.abc import Sequence

import numpy as np

_HARDLY_BELOW = 0.99  # of the loss of guessing
_MOST_NAMES = 10  # of classes, in one line


def flat_loss(mean: float, last: float, num_classes: int) -> str:
    """Says so if the loss is not below that of guessing at the end of the first epoch; else ''.

    A network that gives all classes the same probability has the loss ln(num_classes). One whose
    logits are all dead (behind a ReLU that lets none through, say) stays there for ever.

    Args:
      mean: over the epoch, in nats.
      last: of its last batch, after the update.
      num_classes: number of logits.
    """
    guessing = math.log(num_classes)
    if num_classes < 2:  # there is nothing to guess
        return ""
    if min(mean, last) < _HARDLY_BELOW * guessing:
        return ""
    return (
        f"The loss has not fallen below that of guessing, {guessing:.4f}: {mean:.4f} over the "
        f"first epoch, {last:.4f} in its last batch. Look for dead logits (a ReLU on them?), a "
        "learning rate that is too small or large, or labels that do not belong to their images."
    )


def lost_classes(
    classes: np.ndarray, labels: np.ndarray, names: Sequence[str], relu_logits: bool = False
) -> str:
    """Names the classes that are among the labels and never predicted; '' if there are none.

    Args:
      classes: int32 [N], predicted in one evaluation.
      labels: int32 [N].
      names: of the classes; the first ten that are lost are named.
      relu_logits: whether the model has a ReLU on its logits, which does this: a class whose logit
        is negative for every image gets no gradient of its own (see configs/lenet.py).
    """
    lost = sorted({*labels.tolist()} - {*classes.tolist()})
    if not lost:
        return ""
    images = int(np.isin(labels, lost).sum())
    which = ", ".join(names[label] for label in lost[:_MOST_NAMES])
    if len(lost) > _MOST_NAMES:
        which += f" and {len(lost) - _MOST_NAMES:,} more"
    told = f"Never predicted: {which}, which {images:,} of {len(labels):,} images are."
    if relu_logits:
        told += (
            " The ReLU on the logits leaves such classes without a gradient: "
            "config.model.relu_logits=false, in a new workdir, mends it."
        )
    return told
