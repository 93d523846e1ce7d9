"""A small functional training framework in JAX/Flax.

A model is a pure function, a step is a pure function, a run is a fold of steps over data, and
everything that happens can be repeated to the bit. Read it in this order:

    training.py    the run: config in, trained state out
    loop.py        what happens between the first step and the last, on one page
    steps.py       loss_fn, train_step, eval_step, predict_step: pure
    programs.py    the steps in their loop; compilation.py jits them, in one place
    state.py       what a run carries, and where every random number comes from
    data/          where images come from (NumPy), how batches are drawn and augmented (JAX)
    models/        linen modules
    optim.py       optax's optimizers and schedules, by optax's names
    cpu/           why a step inside a loop is fast on a CPU
    checkpoint.py  save, restore, latest, best; resume.py says whether a run may go on from there
    config.py      every field, once; validation.py finds every fault at once

What looks at a run reads it from its workdir by inference.py, and a run that does not ask for it
imports none of it:

    evaluation.py, prediction.py    a split counted once; pictures, laid out by ink.py
    report/        a page of curves, mistakes and layers
    serve/         a page to draw on
    export.py      files that run without this package; model_card.py goes with them
    tensorboard.py a view of metrics.jsonl

launch.py at the top of the repository turns flags into calls of these.
"""

__version__ = "0.1.0"
