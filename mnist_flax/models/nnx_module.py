"""A flax.nnx module as a linen one: what is stateful there is variables here.

Flax's own bridge, nnx.bridge.ToLinen, gives a module no dropout key when it starts, and keeps
kinds of state that no run carries. Built from nnx's functional parts instead.
"""

import inspect
from typing import Any

import jax
from flax import linen as nn
from flax import nnx

from mnist_flax.errors import UsageError

_KINDS = {"params": nnx.Param, "batch_stats": nnx.BatchStat}  # by the collection that they are in


class NNXModule(nn.Module):
    """Makes the nnx module anew in each call, and gives it the variables that linen holds.

    What its constructor draws is used for `init` alone; elsewhere nothing depends on it, and the
    compiler leaves it out. Dropout draws from the key of the step.

    Attributes:
      nnx_class: (**fields, rngs=nnx.Rngs) -> nnx.Module, which maps images float32 [B, H, W, C] in
        [0, 1] to logits. Training and rest are its .train() and .eval(); where its __call__ has a
        parameter `train`, it is given that, too.
      fields: of its constructor.
    """

    nnx_class: Any
    fields: dict[str, Any]

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> Any:
        """Returns what the module gives for images float32 [B, H, W, C] in [0, 1]."""
        stream = "params" if self.is_initializing() else "dropout"
        key = self.make_rng(stream) if self.has_rng(stream) else jax.random.key(0)
        module = self.nnx_class(**self.fields, rngs=nnx.Rngs(key))
        if self.is_initializing():
            _require_known(module, self.nnx_class.__name__)
            self._keep(module, _KINDS)
        for collection, kind in _KINDS.items():
            state = nnx.state(module, kind)
            nnx.replace_by_pure_dict(state, dict(self.variables.get(collection, {})))
            nnx.update(module, state)
        module.train() if train else module.eval()
        asked = {"train": train} if "train" in inspect.signature(module.__call__).parameters else {}
        outputs = module(images, **asked)
        self._keep(module, [name for name in _KINDS if self.is_mutable_collection(name)])
        return outputs

    def _keep(self, module: nnx.Module, collections: Any) -> None:
        for collection in collections:
            state = nnx.to_pure_dict(nnx.state(module, _KINDS[collection]))
            for name, value in _with_texts(state).items():
                self.put_variable(collection, name, value)


def layers_table(model: Any, images: jax.Array, look: dict[str, Any]) -> str:
    """Returns nnx's table of the layers, their output shapes and parameters.

    Args:
      model: an NNXModule.
      images: float32 [1, H, W, C].
      look: how nnx.tabulate is asked to print it.
    """
    module = model.nnx_class(**model.fields, rngs=nnx.Rngs(0))
    module.eval()
    return nnx.tabulate(module, images, **look)


def _require_known(module: nnx.Module, name: str) -> None:
    known = (*_KINDS.values(), nnx.RngState)
    kept = nnx.state(module, nnx.Not(nnx.Any(*known)))
    leaves = jax.tree.leaves(kept, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    if leaves:
        kinds = sorted({type(leaf).__name__ for leaf in leaves})
        raise UsageError(
            f"config.model.name: {name} keeps {', '.join(kinds)}; of an nnx module a run carries "
            "nnx.Param and nnx.BatchStat only."
        )


def _with_texts(tree: Any) -> Any:
    """The same nested dict; its keys are texts, which those of a list's layers are not."""
    if not isinstance(tree, dict):
        return tree
    return {str(key): _with_texts(value) for key, value in tree.items()}
