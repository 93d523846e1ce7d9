"""Models by name.

A model is a linen module whose `__call__(images, *, train=False)` takes float32 [B, H, W, C] in
[0, 1] and returns logits [B, num_classes]. With train=True it may draw from the 'dropout' rng and
update 'batch_stats'. Those that draw have more to say, see vae.py. One family a file, in plain
nn.Conv, nn.max_pool, nn.Dense: cpu/ makes them fast.
"""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from mnist_flax.config import registry
from mnist_flax.errors import UsageError, where_it_failed

MODELS = {
    "compact": "mnist_flax.models.compact:Compact",
    "tutorial": "mnist_flax.models.tutorial:Tutorial",
    "lenet": "mnist_flax.models.lenet:LeNet",
    "dcgan": "mnist_flax.models.dcgan:DCGAN",
    "dcgan_small": "mnist_flax.models.dcgan_small:DCGANSmall",
    "vae": "mnist_flax.models.vae:VAE",
    "threeconv": "mnist_flax.models.threeconv:ThreeConv",
    "ensemble": "mnist_flax.models.ensemble:Ensemble",
}


def create_model(
    config: ConfigDict,
    num_classes: int,
    image_shape: tuple[int, int, int] | None = None,
    compute_dtype: str = "float32",
) -> nn.Module:
    """Builds the module that config.model names; its other fields are the module's own.

    A class of nnx modules is made a linen module of (nnx_module.py).

    Args:
      config: the model section: `name`, and fields of that module.
      num_classes: passed on if the module has a field of this name.
      image_shape: (H, W, C), likewise, where a task gives it: of what the module draws.
      compute_dtype: 'bfloat16' is passed on as `dtype`; with 'float32' a module keeps its own.

    Raises:
      UsageError: an unknown name, something that is no module, or fields that it lacks.
    """
    cls = registry.resolve(config.name, MODELS, "config.model.name")
    defaults = _defaults(cls, config.name)
    known = defaults.keys()
    fields = {key: value for key, value in config.items() if key != "name"}
    if unknown := sorted(fields.keys() - known):
        raise UsageError(
            f"config.model.{unknown[0]}: {config.name!r} has no such field."
            f"{registry.nearest(unknown[0], known)} It has: {', '.join(sorted(known)) or 'none'}."
        )
    _check_types(fields, defaults)
    dtype = None if compute_dtype == "float32" else jnp.dtype(compute_dtype)
    if dtype is not None and "dtype" not in known:
        raise UsageError(
            f"config.compute_dtype={compute_dtype!r}: {config.name!r} has no field dtype. Give "
            "it one and pass that to its layers, or leave config.compute_dtype out."
        )
    given = {"num_classes": num_classes, "image_shape": image_shape, "dtype": dtype}
    for name, value in given.items():
        if name in known and value is not None:
            fields.setdefault(name, value)
    try:
        if not is_nnx(cls):
            return cls(**fields)
        from mnist_flax.models.nnx_module import NNXModule  # a fifth of a second, and not for all

        return NNXModule(cls, fields)
    except UsageError:
        raise
    except Exception as error:  # a field without a default that the config lacks, a user's fault
        told = where_it_failed(error, __file__)
        raise UsageError(f"config.model.name={config.name!r}: {told}") from error


def is_nnx(cls: Any) -> bool:
    """Says whether it is a class of flax.nnx modules, without importing these."""
    return inspect.isclass(cls) and any(c.__module__.startswith("flax.nnx") for c in cls.__mro__)


def class_of(model: nn.Module) -> type:
    """Returns the class that a config names for this module: of an nnx module, its own."""
    return getattr(model, "nnx_class", type(model))


def _defaults(cls: Any, name: str) -> dict[str, Any]:
    """Returns the fields that a module's constructor takes, and their defaults."""
    if is_nnx(cls):
        parameters = dict(list(inspect.signature(cls.__init__).parameters.items())[1:])
        if parameters.pop("rngs", None) is None:
            raise UsageError(
                f"config.model.name={name!r}: its constructor takes no rngs, which layers of nnx "
                "need."
            )
        return {name: each.default for name, each in parameters.items()}
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        raise UsageError(
            f"config.model.name={name!r}: {cls!r} is no class of linen or nnx modules."
        )
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    return {field: default for field, default in fields.items() if field not in ("parent", "name")}


def _check_types(fields: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raises UsageError for "false" where False is meant: a recipe's sections lock no types."""
    for field, value in fields.items():
        default = defaults[field]
        if isinstance(default, bool) and not isinstance(value, bool):
            kind = "true or false"
        elif type(default) in (int, float) and (
            isinstance(value, bool) or not isinstance(value, int | float | None)
        ):
            kind = "a number"
        elif isinstance(default, str) and not isinstance(value, str | None):
            kind = "a name"
        else:
            continue
        raise UsageError(f"config.model.{field}={value!r}: must be {kind}, as its default is.")


def summary(model: nn.Module, image_shape: tuple[int, ...], width: int = 100) -> str:
    """Returns the table of the layers, their output shapes and parameters, for one image.

    Args:
      model: a linen module.
      image_shape: (H, W, C).
      width: columns; what does not fit is folded.
    """
    from rich import box  # flax prints its table with rich

    images = jnp.zeros((1, *image_shape), jnp.float32)
    look: dict[str, Any] = {
        "depth": 1,
        "console_kwargs": {"width": width, "force_terminal": False},
        "table_kwargs": {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0)},
        "column_kwargs": {"overflow": "fold"},
    }
    if class_of(model) is type(model):
        table = model.tabulate(jax.random.key(0), images, **look)
    else:
        from mnist_flax.models.nnx_module import layers_table

        table = layers_table(model, images, look)
    return "\n".join(line.rstrip() for line in table.splitlines() if line.strip())
