"""A small functional training framework in JAX/Flax.

A model is a pure function, a step is a pure function, a run is a fold of steps over data, and
everything that happens can be repeated to the bit. Read it in this order:

    training.py    the run: config in, trained state out; the loop on one page
    steps.py       loss_fn, train_step, eval_step, predict_step, and where they are jitted
    state.py       what a run carries, and where every random number comes from
    data/          where images come from (NumPy) and how batches are drawn (JAX)
    models/        linen modules
    cpu.py         why a step inside a loop is fast on a CPU
    checkpoint.py  save, restore, latest, best
    config.py      every field, once

launch.py at the top of the repository turns flags into calls of these.
"""

__version__ = "0.1.0"
