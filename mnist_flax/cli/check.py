"""--mode=check: everything before the first step, and what is then known of the run.

Standard output has the config alone, as JSON; the rest is said on stderr, as training says it.
Nothing is written to the workdir, which need not be there.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_flax.cli.flags import FLAGS, Launch, required_recipe, workdir
from mnist_flax.cli.hints import say
from mnist_flax.cli.train import asked_init_from
from mnist_flax.config import overridden
from mnist_flax.errors import UsageError, UserError

if TYPE_CHECKING:
    from mnist_flax.training.gather import Plan
    from mnist_flax.training.outlook import Outlook
    from mnist_flax.training.timetable import Timetable
    from mnist_flax.training.trial import Timed, Trial


def check_as_asked(launch: Launch) -> int:
    """Checks what would be trained; returns 0, or the status of what training would refuse."""
    recipe = required_recipe(launch)
    if FLAGS.distributed != "off":
        raise UsageError(
            f"--distributed={FLAGS.distributed}: --mode=check looks at a run of one process; leave "
            "it out."
        )
    config, notes = overridden(recipe, launch.overrides)
    folder, source = workdir(), asked_init_from()
    for note in notes:
        say(note)
    import jax

    from mnist_flax.core.settings import require_jax
    from mnist_flax.data.placement import Placement
    from mnist_flax.training.finetune import InitFrom, refuse_init_from
    from mnist_flax.training.gather import check, gather
    from mnist_flax.training.outlook import look_at
    from mnist_flax.training.own_data import with_own_data
    from mnist_flax.training.taken import with_taken
    from mnist_flax.training.trial import try_out

    require_jax()
    check(config)
    config, taken = with_taken(config, folder, say)
    config = with_own_data(config, folder, say)
    plan = replace(gather(config, say, Placement.over(jax.devices())), taken=taken)
    refuse_init_from(plan.task, config.task.name, InitFrom(*source) if source else None)
    _say_data(plan)
    _say_layers(plan)
    outlook, refusal = None, None
    try:
        outlook = look_at(plan, folder, InitFrom(*source) if source else None)
    except UserError as error:
        refusal = error
    _say_steps(plan, outlook)
    _say_trial(plan, try_out(plan), outlook)
    _say_workdir(folder, outlook, refusal)
    print(json.dumps(plan.config.to_dict(), indent=2, sort_keys=True), flush=True)
    return refusal.exit_status if refusal else 0


def _say_data(plan: "Plan") -> None:
    from mnist_flax.show.data_lines import data_line, extra_lines, shape_line

    say(data_line(plan.dataset))
    say(shape_line(plan.dataset))
    for line in extra_lines(plan.dataset):
        say(line)
    for note in plan.dataset.notes:
        say(note)


def _say_layers(plan: "Plan") -> None:
    from mnist_flax.core.layers import layers_of_step, num_bytes
    from mnist_flax.models import class_of, summary
    from mnist_flax.show.layer_table import format_bytes, layer_table
    from mnist_flax.tasks import create_task

    model = plan.task.model
    if model is not None and class_of(model) is not type(model):
        say(summary(model, plan.spec.image_shape))  # of nnx's layers, which are one layer here
    task, size = create_task(plan.config, plan.spec), plan.config.batch_size
    layers = layers_of_step(task, plan.tried.form, plan.spec, size)
    say(layer_table(layers))
    say(
        f"All of one step of {size:,} images. FLOPs are the multiplications and additions of "
        "convolutions and matrix products, gradients included, and of nothing else. What layers "
        "give is not all that a step holds: for that see its memory below."
    )
    variables, form = plan.tried.form.variables, plan.tried.form
    others = {name: tree for name, tree in variables.items() if name != "params"}
    held = {"parameters": form.params, **others, "optimizer state": form.opt_state}
    sizes = (f"{name} {format_bytes(num_bytes(tree))}" for name, tree in held.items())
    say(f"State: {', '.join(sizes)}.")


def _say_steps(plan: "Plan", outlook: "Outlook | None") -> None:
    from mnist_flax.show.counted import counted

    times, since = plan.times, outlook.step if outlook else 0
    finished = outlook is not None and outlook.finished
    if not plan.task.trains:
        say(
            f"Steps: none, for the task {plan.config.task.name!r} trains nothing. It is evaluated "
            "and saved once."
        )
        return
    left, epochs = times.times_after(since), times.total_steps / times.steps_per_epoch
    ahead = "" if not since else f" Ahead from step {since:,}:"
    several = "epochs" if epochs != 1 else "epoch"
    say(
        f"Steps: {times.total_steps:,}, which are {epochs:.4g} {several} of "
        f"{times.steps_per_epoch:,}.{'' if finished else ahead}"
    )
    if finished:
        return
    best = ", and the best besides" if plan.task.best else ""
    for count, noun, when in (
        (left.rows, "training row", _when(times, since, times.log_every, from_start=True)),
        (left.evaluations, "evaluation", _when(times, since, times.eval_every)),
        (left.saves, "save", _when(times, since, times.checkpoint_every) + best),
    ):
        say(f"  {counted(count, noun)}: {when}")
    if plan.config.early_stopping_patience:
        say("  or fewer: config.early_stopping_patience may end the run earlier")


def _when(times: "Timetable", since: int, every: int, from_start: bool = False) -> str:
    """Returns 'at step 1, every 10 steps, and at the end': only of what comes after `since`.

    Args:
      times: of the run.
      since: the step that it goes on from.
      every: so many steps.
      from_start: whether the first step has one, too.
    """
    parts = (
        ["at step 1"] if from_start and not since and every > 1 and times.total_steps > 1 else []
    )
    if (times.total_steps - 1) // every > since // every:  # one at least before the end
        parts.append("every step" if every == 1 else f"every {every:,} steps")
    return ", ".join([*parts, "and at the end" if parts else "at the end"])


def _say_trial(plan: "Plan", trial: "Trial", outlook: "Outlook | None") -> None:
    from mnist_flax.show.layer_table import format_bytes
    from mnist_flax.workdir.environment import environment

    device = environment(devices=plan.placement.devices)["device"]
    for layer in trial.slow_layers:
        say(f"Slow in XLA's loops, so each step is called from Python: {layer}.")
    say(f"Compiled in {trial.compile_seconds:.1f} s for {device}.")
    if trial.memory is None:
        say("Memory of a step: XLA does not tell it here.")
    else:
        held, temporary = trial.memory
        where = " on each device" if plan.placement.devices > 1 else ""
        say(
            f"Memory of a step, as XLA has planned it: {format_bytes(held + temporary)}{where}, of "
            f"which {format_bytes(held)} are the state and the data to train on."
        )
    if trial.steps:
        say(f"A step takes {_told(trial.steps, 'step')}.")
    say(f"A batch of an evaluation takes {_told(trial.batches, 'batch')}.")
    if not trial.finite:
        say("Warning: NaN or infinity within these first steps: the run would diverge.")
    if outlook is None or not outlook.finished:
        say(_duration(plan, trial, outlook.step if outlook else 0))


def _told(timed: "Timed", what: str) -> str:
    """Returns '61.2 ms: the median of 5 chunks of 3 steps, from 60.1 to 63.0 ms'."""
    from mnist_flax.show.counted import counted

    low, high = 1000 * min(timed.seconds), 1000 * max(timed.seconds)
    return (
        f"{1000 * timed.median:.3g} ms: measured, the median of "
        f"{counted(len(timed.seconds), 'chunk')} of {counted(timed.length, what)}, from {low:.3g} "
        f"to {high:.3g} ms"
    )


def _duration(plan: "Plan", trial: "Trial", since: int) -> str:
    """Says how long the run would take from this step on, and what of it that is."""
    sources = [plan.eval_source, *plan.extra_sources.values()]
    batches = sum(source.steps_per_epoch for source in sources)
    evaluations = 1 if not plan.task.trains else plan.times.times_after(since).evaluations
    parts = {"to compile": trial.compile_seconds}
    if trial.steps:
        parts["for steps"] = (plan.times.total_steps - since) * trial.steps.median
    parts["for evaluations"] = evaluations * batches * trial.batches.median
    *others, last = (f"{_clock(seconds)} {of}" for of, seconds in parts.items())
    return (
        f"Estimated duration: {_clock(sum(parts.values()))}, of which {', '.join(others)} and "
        f"{last}, if nothing else needs the machine. Not counted: Python's start, reading the "
        "data, saves and pictures."
    )


def _clock(seconds: float) -> str:
    """Returns '2 h 5 min', '2 min 5 s' or '4.2 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours:,} h {left} min" if hours else f"{minutes} min {rest} s"


def _say_workdir(folder: Path, outlook: "Outlook | None", refusal: UserError | None) -> None:
    if refusal is not None:
        say(f"Workdir: {folder}. Training would be refused:\nError: {refusal}")
    elif outlook is not None:
        for line in outlook.told:
            say(line)
