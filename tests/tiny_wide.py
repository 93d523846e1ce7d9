"""The tiny network in float64, which counts how often it has seen each image. Not a test itself."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tiny import get_config as tiny

from mnist_flax.core.sums import Sums
from mnist_flax.core.task import OptState, Spec, Task, Variables
from mnist_flax.data.batch import Batch
from mnist_flax.tasks import networks
from mnist_flax.tasks.classification import classification as of_config

IMAGES = 105  # to train on

# A loss in float32 would hide in its rounding what two runs differ in.
networks.single_precision = lambda outputs: outputs


def counting(config: ConfigDict, spec: Spec) -> Task:
    """Classification whose variables have {'seen': {'times': int32 [IMAGES]}}."""
    task = of_config(config, spec)

    def init(key: jax.Array) -> Variables:
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), task.init(key))
        return {**wide, "seen": {"times": jnp.zeros(IMAGES, jnp.int32)}}

    def update(
        variables: Variables, opt_state: OptState, batch: Batch, step: jax.Array, key: jax.Array
    ) -> tuple[Variables, OptState, Sums]:
        variables, opt_state, sums = task.update(variables, opt_state, batch, step, key)
        times = variables["seen"]["times"].at[batch.index].add(1)
        return {**variables, "seen": {"times": times}}, opt_state, sums

    return task._replace(init=init, update=update)


def get_config() -> ConfigDict:
    """Returns the recipe of tiny.py with this task; it needs JAX_ENABLE_X64=1."""
    config = tiny()
    config.task = ConfigDict({"name": "tiny_wide:counting"})
    config.model = ConfigDict({"name": "tiny:TinyNet"})
    # Adam makes a step of the mere rounding of a zero gradient: of a bias before a batch-norm.
    config.optimizer = ConfigDict({"name": "sgd", "learning_rate": 0.05, "momentum": 0.9})
    config.augment.order = ("random_shift",)
    return config
