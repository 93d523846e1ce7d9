"""docs/reference/config.md: every field, name and flag of a run. For reference.py."""

import re

import reference_fields
import reference_names
from reference_markdown import code, codes, prose, sentence, shown, table

from mnist_flax.cli.flags import FLAGS, TAKES

# Sections whose names are optax's: another version of it has other fields there.
OF_OPTAX = ("Optimizers", "Schedules")


def config_page() -> str:
    """Returns the page."""
    parts = [_HEAD, *reference_fields.sections()]
    for title, text in (
        ("Tasks", reference_names.tasks()),
        ("Models", reference_names.models()),
        ("Optimizers", reference_names.optimizers()),
        ("Schedules", reference_names.schedules()),
        ("Augmentations", reference_names.augmentations()),
        ("Observers and writers", reference_names.functions()),
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
        value = "not set" if flag.default in (None, []) else code(shown(flag.default))
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
