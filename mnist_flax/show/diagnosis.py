"""What is wrong with a network that trains and does not learn: pure functions of its figures."""

import math
from collections.abc import Sequence

import numpy as np

from mnist_flax.show.counted import counted

_ENOUGH_STEPS = 100  # before a loss is called flat
_HARDLY_BELOW = 0.99  # of the loss of guessing
_MOST_NAMES = 10  # of classes, in one line


def is_judged(epoch: int, steps_per_epoch: int) -> bool:
    """Says whether it is at this epoch's end that a loss may be called flat: once in a run.

    That is the first epoch that ends after a hundred steps. A few steps are no evidence: in three
    of them a network at its first rates, or in a warm-up, has hardly moved, and learns all the
    same. A hundred are some epochs of small data, and the first epoch of whatever has a hundred
    batches.

    Args:
      epoch: from 1 on.
      steps_per_epoch: of the run.
    """
    return epoch == -(-_ENOUGH_STEPS // steps_per_epoch)


def flat_loss(mean: float, last: float, num_classes: int, epoch: int = 1) -> str:
    """Says so if the loss is not below that of guessing at an epoch's end; else ''.

    The evidence is two means, and both must be as high as guessing: over all steps of the epoch,
    and over its last batch, seen again after the update. `is_judged` says which epoch it is.

    A network that gives all classes the same probability has the loss ln(num_classes). One whose
    logits are all dead (behind a ReLU that lets none through, say) stays there for ever.

    Args:
      mean: over the epoch, in nats.
      last: of its last batch, after the update.
      num_classes: number of logits.
      epoch: which it is, from 1 on.
    """
    guessing = math.log(num_classes)
    if num_classes < 2:  # there is nothing to guess
        return ""
    if min(mean, last) < _HARDLY_BELOW * guessing:
        return ""
    over = "the first epoch" if epoch == 1 else f"epoch {epoch}"
    return (
        f"The loss has not fallen below that of guessing, {guessing:.4f}: {mean:.4f} over {over}, "
        f"{last:.4f} in its last batch. Look for dead logits (a ReLU on them?), a learning rate "
        "that is too small or large, or labels that do not belong to their images."
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
    share = f"{images:,} of {counted(len(labels), 'image')}"
    told = (
        f"{'Class' if len(lost) == 1 else 'Classes'} never predicted: {which}. "
        f"{share} {'belongs' if images == 1 else 'belong'} to {'it' if len(lost) == 1 else 'them'}."
    )
    if relu_logits:
        told += (
            " The ReLU on the logits leaves such classes without a gradient: "
            "config.model.relu_logits=false, in a new workdir, mends it."
        )
    return told
