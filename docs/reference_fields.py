"""The fields of a run, in the sections of docs/reference/config.md. For reference_config.py."""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from reference_markdown import code, prose, sentence, shown, table

from mnist_flax.config import WHAT_IS_EVALUATED, default_config, fields, flatten, is_harmless

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
_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text", tuple: "tuple"}


class Group(NamedTuple):
    """Fields that one comment explains, by their names, in their order."""

    names: list[str]
    comment: str


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


def sections() -> Iterator[str]:
    """Yields them, each with a table of its fields; every field stands in one."""
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
    return _TYPES[kind], "not set" if value is None else code(shown(value))


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
