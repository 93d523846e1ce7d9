"""Runs a document's program with a few steps in each training. Not a test itself.

python tests/short_program.py PROGRAM DATA_DIR STEPS
"""

import functools
import runpy
import sys
from typing import Any

import mnist_flax
from mnist_flax import training

program, data_dir, steps = sys.argv[1:]
train = training.train


@functools.wraps(train)
def short(config: Any, *arguments: Any, **others: Any) -> Any:
    """Trains for fewer steps, on the test's data if the program names none."""
    config.num_steps, config.num_epochs = int(steps), None
    if config.data.data_dir is None and "data" not in others:
        config.data.data_dir = data_dir
    return train(config, *arguments, **others)


mnist_flax.train = training.train = short
sys.path.insert(0, ".")
runpy.run_path(program, run_name="__main__")
