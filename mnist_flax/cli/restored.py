"""The run that a command asks something of: restored, its data, and how pictures are prepared."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_flax.cli.flags import FLAGS, workdir
from mnist_flax.cli.hints import say
from mnist_flax.errors import UsageError, UserError

if TYPE_CHECKING:
    from mnist_flax.data.dataset import Dataset
    from mnist_flax.data.preparation import Preparation
    from mnist_flax.use.restore import Restored


def restore_asked(
    overrides: Mapping[str, Any], path: Path | None = None, which: str | None = None
) -> "Restored":
    """Restores a network, by default that of --workdir and --checkpoint, and says which."""
    from mnist_flax.use.restore import restore

    restored = restore(path or workdir(), which or FLAGS.checkpoint, overrides)
    mode, able = "report" if FLAGS.mode == "train" else FLAGS.mode, restored.task.modes
    if mode not in able:
        raise UsageError(
            f"--mode={mode}: makes no sense for the task {restored.config.task.name!r}. It can "
            f"{', '.join(able) or 'be trained alone'}."
        )
    say(f"Restored step {int(restored.state.step):,} from {restored.checkpoint}")
    return restored


def restore_other(overrides: Mapping[str, Any], path: Path, which: str) -> "Restored":
    """Restores a run of --compare. Raises UsageError if it is this one, or cannot be had."""
    if path.resolve() == workdir().resolve():
        raise UsageError(f"--compare={path}: is this run itself. Name others.")
    try:
        return restore_asked(overrides, path, which)
    except UserError as error:
        raise UsageError(f"--compare={path}: {error}") from error


def data_of(restored: "Restored") -> "Dataset":
    """Loads its data, and says what there is to say of them."""
    from mnist_flax.use.run_data import load_data

    dataset = load_data(restored, say)
    for note in dataset.notes:
        say(note)
    return dataset


def preparation_of(restored: "Restored") -> "Preparation":
    """Returns what is done to pictures, by --center or the run's own data, and says it once."""
    from mnist_flax.data.preparation import AS_IS, DIGIT, is_kept, told

    if FLAGS.center is not None:
        prepared, why = DIGIT if FLAGS.center else AS_IS, "--center"
    else:
        prepared, why = restored.preparation, "as the training data are"
        if not is_kept(restored.trained_on):
            why = f"an older run, so by its data's name, {restored.trained_on['name']}"
    say(f"Pictures ({why}): {told(prepared, restored.image_shape)}.")
    return prepared
