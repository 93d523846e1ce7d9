"""docs/reference/config.md: every field, name and flag of a run. For reference.py."""

import ast
import dataclasses
import importlib.util
import inspect
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from reference_markdown import code, codes, described, first_sentence, prose, sentence, table

from mnist_flax.cli.flags import FLAGS, TAKES
from mnist_flax.config import WHAT_IS_EVALUATED, default_config, fields, flatten, is_harmless
from mnist_flax.config.registry import resolve
from mnist_flax.core.optimizers import MASKS, OPTIMIZERS, SCHEDULES
from mnist_flax.data.augment import AUGMENTATIONS
from mnist_flax.models import MODELS
from mnist_flax.models.blocks import INITIALIZERS
from mnist_flax.show.observers import OBSERVERS
from mnist_flax.show.writers import WRITERS
from mnist_flax.tasks import TASKS

# Where a reader looks for them. A field is given by its name, a section stands for all of it.
SECTIONS = {
    "How long, and how often": (
        *("batch_size", "num_steps", "num_epochs", "log_every_steps", "eval_every_steps"),
        *("checkpoint_every_steps", "keep_checkpoints", "on_damaged_checkpoint"),
    ),
    "Data": ("data",),
    "Augmentation": ("augment",),
    "Task, network and loss": ("task", "model", "label_smoothing", "class_weights"),
    "Optimizer and precision": (
        *("optimizer", "schedule", "clip_by_global_norm", "accumulate_steps", "ema_decay"),
        "compute_dtype",
    ),
    "When things go badly": ("on_bad_step", "early_stopping_patience"),
    "What is shown and written": (
        *("observers", "log_norms", "log_probabilities", "tensorboard", "writers"),
        "on_writer_fault",
    ),
    "The run as a whole": ("seed", "compilation_cache"),
}
# What stands under a table of fields.
_MORE = {
    "Augmentation": "[The names, and the fields of each](#augmentations).",
    "Task, network and loss": "[The tasks](#tasks), [the models](#models), and the fields of each.",
    "Optimizer and precision": (
        "[The optimizers](#optimizers), [the schedules](#schedules), and the fields of each."
    ),
    "What is shown and written": "[Names of observers and writers](#observers-and-writers).",
}
# Sections whose names are optax's: another version of it has other fields there.
OF_OPTAX = ("Optimizers", "Schedules")
# What a run fills in of its data and of compute_dtype.
_FILLED_IN = ("num_classes", "image_shape", "dtype")
_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text", tuple: "tuple"}


class Group(NamedTuple):
    """Fields that one comment explains, by their names, in their order."""

    names: list[str]
    comment: str


def config_page() -> str:
    """Returns the page."""
    parts = [_HEAD, *_sections()]
    for title, text in (
        ("Tasks", _tasks()),
        ("Models", _models()),
        ("Optimizers", _of_optax(OPTIMIZERS, "config.optimizer.name", _MASKS)),
        ("Schedules", _of_optax(SCHEDULES, "config.schedule.name", _SCHEDULES)),
        ("Augmentations", _augmentations()),
        ("Observers and writers", _functions()),
        ("Flags", _flags()),
    ):
        parts.append(f"## {title}\n\n{text}")
    return "\n\n".join(parts) + "\n"


_HEAD = """# Every field, name and flag

<!-- Written by docs/reference.py out of the code. Change the comments and docstrings there. -->

A field is set in a recipe, `config.batch_size = 50`, or on the command line,
`--config.batch_size=50`. *On resume* says whether it may change when a run goes on: `yes` is taken
and reported, `no` stops with a list of the changes. On the command line a tuple is
`--config.class_weights="(1.0, 5.0)"`, and names in one are quoted:
`--config.augment.order="'random_rotation','random_shift'"`. A name may also be
`package.module:attribute`, an object of your own."""

_MASKS = f"A mask, such as `adamw`'s, is a name, {codes(MASKS)}, or a function of your own."
_SCHEDULES = (
    "`value`, `peak_value` or else `init_value` is the learning rate, and `decay_steps` or "
    "`transition_steps` the number of steps of the run, unless they are set here."
)


# Fields


def groups() -> list[Group]:
    """Returns the fields of fields.py in their order, each group with the comment that it has.

    A comment stands above an assignment or behind it, and holds for the assignments that follow
    without a comment or an empty line between.
    """
    source = inspect.getsource(fields)
    above, behind = _comments(source)
    assigned = dict(_assignments(source))
    config, found, last = default_config(), [], 0
    for name, node in assigned.items():
        if name.startswith("augment."):  # of a function: they stand with it
            continue
        names = _leaves(config, name, assigned)
        lines = []
        line = node.lineno - 1
        while line in above:
            lines.insert(0, above[line])
            line -= 1
        lines += [
            behind[line] for line in range(node.lineno, node.end_lineno + 1) if line in behind
        ]
        if lines or not found or node.lineno != last + 1:
            found.append(Group(names, sentence(" ".join(lines)) if lines else ""))
        else:
            found[-1].names.extend(names)
        last = node.end_lineno
    return [group for group in found if group.names]


def _comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Returns the comments by line: those that have one to themselves, and the others."""
    above, behind = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            place = behind if token.line[: token.start[1]].strip() else above
            place[token.start[0]] = token.string.lstrip("# ")
    return above, behind


def _assignments(source: str) -> Iterator[tuple[str, ast.Assign]]:
    """Yields ('data.name', the statement) for each config.data.name = … of default_config()."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            yield ast.unparse(node.targets[0]).removeprefix("config."), node


def _leaves(config: ConfigDict, name: str, assigned: Mapping[str, Any]) -> list[str]:
    """Returns the fields that an assignment gives, without those that have one of their own."""
    inside = [field for field in flatten(config) if f"{field}.".startswith(f"{name}.")]
    if not inside:  # a section that is empty by default
        return [name]
    of_others = [other for other in assigned if other.startswith(f"{name}.")]
    left = [
        field
        for field in inside
        if not any(f"{field}.".startswith(f"{other}.") for other in of_others)
    ]
    return sorted(left, key=lambda field: not field.endswith(".name"))


def _sections() -> Iterator[str]:
    left = groups()
    for title, wanted in SECTIONS.items():
        chosen = [
            group
            for name in wanted
            for group in left
            if any(f"{field}.".startswith(f"{name}.") for field in group.names)
        ]
        chosen = [group for place, group in enumerate(chosen) if group not in chosen[:place]]
        left = [group for group in left if group not in chosen]
        more = f"\n\n{_MORE[title]}" if title in _MORE else ""
        yield f"## {title}\n\n{_fields_table(chosen)}{more}"
    if left:
        raise ValueError(f"SECTIONS has no place for {left[0].names}.")


def _fields_table(chosen: Sequence[Group]) -> str:
    rows = []
    for group in chosen:
        if not group.comment:
            raise ValueError(f"fields.py says nothing of {group.names}.")
        each = [(code(name), *_type_and_default(name), _on_resume(name)) for name in group.names]
        names, types, defaults, resume = zip(*each, strict=True)
        # What all of them have is said once.
        types, resume = (dict.fromkeys(x) if len({*x}) == 1 else x for x in (types, resume))
        columns = map("<br>".join, (names, types, defaults, resume))
        rows.append((*columns, prose(group.comment)))
    return table(("field", "type", "default", "on resume", "meaning"), rows)


def _type_and_default(field: str) -> tuple[str, str]:
    section, _, leaf = field.rpartition(".")
    config = default_config()
    for part in section.split(".") if section else []:
        config = config[part]
    value, kind = config[leaf], config.get_type(leaf)
    if isinstance(value, ConfigDict):
        return "section", "empty"
    return _TYPES[kind], "not set" if value is None else code(_shown(value))


def _shown(value: Any) -> str:
    """Returns a value as a command line gives it; an empty text as Python does."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) and value else repr(value)


def _on_resume(field: str) -> str:
    """Says what config/changes.py, and training/resume.py with it, say of a changed field."""
    if field == "early_stopping_patience":
        return "yes, if it is set before and after"
    if is_harmless(field, length_matters=False) and not is_harmless(field, length_matters=True):
        return "yes, if no learning rate depends on it"
    if not is_harmless(field, length_matters=True) and not is_harmless(
        f"{field}.x", length_matters=True
    ):
        return "no"
    if field in WHAT_IS_EVALUATED:
        return "yes, unless patience is set"
    same = field.startswith("data.") and field not in ("data.stream", "data.extra_eval_splits")
    return "yes, if the images stay the same" if same else "yes"


# Names


def _tasks() -> str:
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


def _models() -> str:
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


def _augmentations() -> str:
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


def _functions() -> str:
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
            "must be set" if each.default is each.empty else code(_shown(each.default)),
            prose(sentence(told.get(each.name, ""))),
        )
        for each in own
    ]
    return table(("field", "default", "meaning"), rows)


def _with_default(each: inspect.Parameter) -> str:
    if each.default is each.empty:
        return code(each.name)
    value = getattr(each.default, "__name__", None) or _shown(each.default)
    return code(f"{each.name}={value}")


# Flags


def _flags() -> str:
    known = [flag.name for flag in FLAGS.get_flags_for_module("mnist_flax.cli.flags")]
    modes = [
        (code(f"--mode={mode}"), codes(f"--{name}" for name in known if name in taken))
        for mode, taken in TAKES.items()
    ]
    rows = []
    for flag in FLAGS.get_flags_for_module("mnist_flax.cli.flags"):
        told = re.sub(r"^<.*?>: |;\s+repeat this option.*", "", flag.help)
        allowed = getattr(flag.parser, "enum_values", None)
        value = "not set" if flag.default in (None, []) else code(_shown(flag.default))
        values = f" One of {codes(allowed)}." if allowed else ""
        rows.append((code(f"--{flag.name}"), value, prose(sentence(told)) + values))
    return "\n\n".join(
        (
            "`--config`, `--workdir`, `--mode` and any `--config.FIELD` are for every mode; the "
            "others are for these, and refused elsewhere:",
            table(("mode", "its own flags"), modes),
            table(("flag", "default", "meaning"), rows),
        )
    )
