"""What a run is set to do: every field once, names that become objects, every fault at once.

fields.py      default_config(): every field with what it means
section.py     a config and its sections: what they refuse, in one line
changes.py     the command line's values; what a run may take when it goes on
paths.py       ~ in the name of a folder
sweep.py       what a sweep varies: grids, random points, and their names
registry.py    a name, or 'package.module:attribute', -> the object
validation.py  every fault of a config at once
"""

from mnist_flax.config.changes import (
    OF_EXTRA_SPLITS,
    OF_TAKEN,
    WHAT_IS_EVALUATED,
    as_flag,
    diff,
    flatten,
    is_harmless,
    may_be_added,
    overridden,
)
from mnist_flax.config.fields import default_config

__all__ = [
    "OF_EXTRA_SPLITS",
    "OF_TAKEN",
    "WHAT_IS_EVALUATED",
    "as_flag",
    "default_config",
    "diff",
    "flatten",
    "is_harmless",
    "may_be_added",
    "overridden",
]
