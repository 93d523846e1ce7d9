"""A small functional training framework in JAX/Flax.

A model is a pure function, a step is a pure function, a run is a fold of steps over data, and
everything that happens can be repeated to the bit. Each folder imports only from those above it:

    errors.py keys.py  what a user can cause; where every random number comes from
    cpu/       why a step inside a loop is fast on a CPU
    config/    every field, once; every fault at once
    data/      where images come from (NumPy), how batches are drawn and augmented (JAX)
    models/    linen modules
    core/      what a run carries, its sums, its optimizers and schedules: pure JAX
    tasks/     what is learnt: loss_fn, train_step, eval_step, predict_step, pure
    workdir/   what lies on disk and survives: rows, checkpoints
    use/       a trained network out of its workdir: restored, evaluated, asked, looked into
    show/      what a person sees: console, figures, TensorBoard
    training/  the run: config in, trained state out
    report/    a page of curves, mistakes and layers
    serve/     a page to draw on
    export/    files that run without this package, and a model card
    cli/       flags into calls; launch.py at the top of the repository is a door to it
"""

__version__ = "0.2.0"
