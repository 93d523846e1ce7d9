"""What a field may name, for docs/reference/config.md: tasks, models, optimizers, and so on."""

import ast
import dataclasses
import importlib.util
import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from reference_markdown import code, codes, described, first_sentence, prose, sentence, shown, table

from mnist_flax.config import default_config
from mnist_flax.config.registry import resolve
from mnist_flax.core.optimizers import MASKS, OPTIMIZERS, SCHEDULES
from mnist_flax.data.augment import AUGMENTATIONS
from mnist_flax.models import MODELS
from mnist_flax.models.blocks import INITIALIZERS
from mnist_flax.show.observers import OBSERVERS
from mnist_flax.show.writers import WRITERS
from mnist_flax.tasks import TASKS

# What a run fills in of its data and of compute_dtype.
_FILLED_IN = ("num_classes", "image_shape", "dtype")
_MASKS = f"A mask, such as `adamw`'s, is a name, {codes(MASKS)}, or a function of your own."
_SCHEDULES = (
    "`value`, `peak_value` or else `init_value` is the learning rate, and `decay_steps` or "
    "`transition_steps` the number of steps of the run, unless they are set here."
)


def tasks() -> str:
    """Returns the tasks, each with its fields."""
    parts = [
        "`config.task.name`. What else stands in the section is passed to the function; a task of "
        "your own is on [a page of its own](../guide/tasks.md)."
    ]
    for name in _sorted(TASKS, "classification"):
        builder = resolve(name, TASKS, "config.task.name")
        parts += [f"### `{name}`", prose(first_sentence(inspect.getmodule(builder)))]
        own = list(inspect.signature(builder).parameters.values())[2:]  # after config and spec
        parts.append(_own_table(own, described(builder)) if own else "It has no fields.")
    return "\n\n".join(parts)


def models() -> str:
    """Returns the models, each with its fields."""
    parts = [
        "`config.model.name`. What else stands in the section is passed to the class. "
        f"{codes(_FILLED_IN)} are filled in from the data and `config.compute_dtype`. "
        f"An initializer (`blocks.INITIALIZERS`) is one of {codes(INITIALIZERS)}."
    ]
    for name in _sorted(MODELS, "tutorial"):
        cls = resolve(name, MODELS, "config.model.name")
        own = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if field.default is dataclasses.MISSING
                else field.default,
            )
            for field in dataclasses.fields(cls)
            if field.name not in ("parent", "name", *_FILLED_IN)
        ]
        parts += [f"### `{name}`", prose(first_sentence(cls))]
        parts.append(_own_table(own, described(cls)) if own else "It has no fields.")
    return "\n\n".join(parts)


def augmentations() -> str:
    """Returns the augmentations, each with its fields."""
    text = (
        "Names for `config.augment.order`, which are applied in that order; their fields stand "
        "under their names: `--config.augment.random_shift.max_pixels=3`."
    )
    rows = []
    for name in sorted(AUGMENTATIONS):
        function = resolve(name, AUGMENTATIONS, "config.augment.order")
        own = list(inspect.signature(function).parameters.values())[2:]  # after the key and images
        section = default_config().augment.get(name, {})
        own = [each.replace(default=section.get(each.name, each.default)) for each in own]
        told = described(function)
        fields_told = [
            f"{_with_default(each)}: {prose(sentence(told[each.name]))}"
            if each.name in told
            else _with_default(each)
            for each in own
        ]
        rows.append((code(name), prose(first_sentence(function)), "<br>".join(fields_told)))
    return f"{text}\n\n{table(('name', 'what it does', 'fields'), rows)}"


def optimizers() -> str:
    """Returns the optimizers, each with its fields."""
    return _of_optax(OPTIMIZERS, "config.optimizer.name", _MASKS)


def schedules() -> str:
    """Returns the schedules, each with its fields."""
    return _of_optax(SCHEDULES, "config.schedule.name", _SCHEDULES)


def _of_optax(names: Mapping[str, str], field: str, text: str) -> str:
    rows = []
    for name in names:
        function = resolve(name, names, field)
        own = [
            _with_default(each)
            for each in inspect.signature(function).parameters.values()
            if each.name != "learning_rate"
        ]
        rows.append((code(name), prose(first_sentence(function)), ", ".join(own)))
    head = f"`{field}`, as in optax {version('optax')}. {text}"
    return f"{head}\n\n{table(('name', 'what it is', 'fields'), rows)}"


def functions() -> str:
    """Returns the observers and the writers."""
    text = (
        "Observers look at the state and may draw; a task brings its own. Writers are handed "
        "[rows](files.md#rows-of-metricsjsonl) alone."
    )
    rows = [
        (code(name), f"`config.{section}`", prose(first_sentence(_docstring(path))))
        for section, known in (("observers", OBSERVERS), ("writers", WRITERS))
        for name, path in known.items()
    ]
    return f"{text}\n\n{table(('name', 'for', 'what it does'), rows)}"


def _docstring(path: str) -> str:
    """Returns a function's docstring without importing its module, which may need a package."""
    module, _, name = path.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    nodes = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(node) or "" for node in nodes if node.name == name)


def _sorted(names: Iterable[str], default: str) -> list[str]:
    return sorted(names, key=lambda name: (name != default, name))


def _own_table(own: Sequence[inspect.Parameter], told: Mapping[str, str]) -> str:
    rows = [
        (
            code(each.name),
            "must be set" if each.default is each.empty else code(shown(each.default)),
            prose(sentence(told.get(each.name, ""))),
        )
        for each in own
    ]
    return table(("field", "default", "meaning"), rows)


def _with_default(each: inspect.Parameter) -> str:
    if each.default is each.empty:
        return code(each.name)
    value = getattr(each.default, "__name__", None) or shown(each.default)
    return code(f"{each.name}={value}")
