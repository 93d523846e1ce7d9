"""The contract of a task: what a run learns, as a bundle of pure functions.

Nothing in it is jitted, and nothing of it touches a disk or prints. core/chunk.py loops `update`,
core/evaluation.py folds `evaluate`; console, rows and pages show whatever metrics it names. tasks/
has the tasks, and docs/guide/tasks.md one of a user's own on a page.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from mnist_flax.core.sums import Metric, Sums
from mnist_flax.data.batch import Batch

Variables = dict[str, Any]  # {'params': …, 'batch_stats': …}: any nesting of arrays
OptState = Any  # one optimizer's, or a dict of several
# (variables, opt_state, step) -> number, after the update of this step, counted from 0.
Rate = Callable[[Variables, OptState, int], float | None]


class Spec(NamedTuple):
    """What a task is given of the data and of the run's length.

    Attributes:
      image_shape: (H, W, C).
      class_names: of the labels, from 0.
      num_steps: of the whole run, for schedules.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    num_steps: int


class Consequence(NamedTuple):
    """What an evaluation means for the steps after it.

    Attributes:
      opt_state: that they go on with.
      told: {event: a line}, what is said of it.
      ends: whether there are none, however many are left.
    """

    opt_state: OptState
    told: Mapping[str, str] = {}
    ends: bool = False


class Task(NamedTuple):
    """What is learnt. A builder makes it: (config, spec, **fields of config.task) -> Task.

    Attributes:
      init: (key) -> variables, from the key of (seed, 'params', 0).
      init_opt: (variables) -> opt_state.
      update: (variables, opt_state, batch, step, key) -> (variables, opt_state, Sums). The key is
        that of (seed, 'dropout', step); for other purposes there is rng_key(seed, purpose, step).
        Variables and opt_state keep their form. The Sums are those of the batch before the update.
      evaluate: (variables, batch) -> (Sums, outputs [B, …] by name), without dropout and with
        running statistics; what batch.mask does not let pass is not summed. Noise is drawn as a
        function of batch.index.
      predict: (variables, images uint8 [B, H, W, C]) -> outputs [B, …] by name: what is answered to
        pictures.
      metrics: the names of Sums that console and pages show, in this order; rows have every sum.
      measure: 'package.module:function' of what else is measured of a whole evaluation:
        (config, dataset, images uint8 [N, H, W, C] that are evaluated) ->
        core.evaluation.Measure; '' for nothing.
      measured: the metrics among what it measures; the rest is in the rows alone.
      best: the metric that chooses the best save; '' for none.
      observers: names of show/observers.py, or 'package.module:function': what is looked at next to
        the numbers of a row.
      rates: what training rows show of the last update, {'learning_rate': …}: (variables,
        opt_state, step) -> number, or None where it is not known, which is said once. The step is
        counted from 0. Called on the host.
      model: the linen module that gives `predict` its answers, from the same variables, for those
        that look into its layers; None where there is no such one.
      in_training: (variables, batch, key) -> outputs [B, …] by name, as `update` computes them; for
        observers of training rows. None where nobody looks.
      exported: which outputs of `predict` an exported file gives; () for all, None for no file.
      modes: of the command, besides 'train': which make sense.
      sample: (variables, latents float32 [B, latent_size], standard normal) -> pictures float32
        [B, H, W, C] in [0, 1]: what is drawn out of noise. None where nothing is.
      latent_size: of what `sample` draws from.
      after_evaluation: (opt_state, means of an evaluation) -> Consequence. Pure, on the host, asked
        more than once.
      answering: (variables) -> those of them that `model` answers with: all, unless a wrapper keeps
        an average of them next to them, or the task has `fixed` ones.
      fixed: the collections of the variables that no step changes and no answer needs, a teacher's:
        no average is kept of them, and no other run's arrays take their place.
      trains: whether there is anything to learn; a run of a task without has no steps.
    """

    init: Callable[[jax.Array], Variables]
    init_opt: Callable[[Variables], OptState]
    update: Callable[
        [Variables, OptState, Batch, jax.Array, jax.Array], tuple[Variables, OptState, Sums]
    ]
    evaluate: Callable[[Variables, Batch], tuple[Sums, dict[str, jax.Array]]]
    predict: Callable[[Variables, jax.Array], dict[str, jax.Array]]
    metrics: Mapping[str, Metric]
    measure: str = ""
    measured: tuple[str, ...] = ()
    best: str = ""
    observers: tuple[str, ...] = ()
    rates: Mapping[str, Rate] = {}
    model: nn.Module | None = None
    in_training: Callable[[Variables, Batch, jax.Array], dict[str, jax.Array]] | None = None
    exported: tuple[str, ...] | None = ()
    modes: tuple[str, ...] = ("eval", "predict", "report", "export")
    sample: Callable[[Variables, jax.Array], jax.Array] | None = None
    latent_size: int = 0
    after_evaluation: Callable[[OptState, Mapping[str, float]], Consequence] = (
        lambda opt_state, means: Consequence(opt_state)
    )
    answering: Callable[[Variables], Variables] = lambda variables: variables
    fixed: tuple[str, ...] = ()
    trains: bool = True
