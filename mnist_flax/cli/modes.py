"""What each mode calls. What they need is imported when they do: --help does not wait for JAX."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_flax.cli.flags import FLAGS, Launch, refuse, workdir
from mnist_flax.cli.hints import say
from mnist_flax.cli.kept_programs import kept_programs
from mnist_flax.config.paths import expanded
from mnist_flax.errors import UsageError, UserError

if TYPE_CHECKING:
    from mnist_flax.data.dataset import Dataset
    from mnist_flax.data.preparation import Preparation
    from mnist_flax.use.restore import Restored


_MOST_SAMPLES = {".png": 10_000, ".npz": 1_000_000}  # nobody looks at more; 784 MB of digits


def _train(launch: Launch) -> int:
    from mnist_flax.cli.train import train_as_asked

    status, finished_here = train_as_asked(launch)
    if finished_here and FLAGS.report:
        _write_report(launch, "latest", {})
    return status


def _sweep(launch: Launch) -> int:
    from mnist_flax.cli.sweep import sweep

    return sweep(launch)


def _check(launch: Launch) -> int:
    from mnist_flax.cli.check import check_as_asked

    return check_as_asked(launch)


def _evaluate(launch: Launch) -> int:
    from mnist_flax.use.evaluation import evaluate_restored, find_measure
    from mnist_flax.workdir.known_images import count_known

    restored = _restore(launch.overrides)
    dataset = _load_data(restored)
    measure = find_measure(restored.task, restored.config, dataset, dataset.eval.images)
    if measure.told:
        say(measure.told)
    result = evaluate_restored(restored, dataset.eval, measure)
    row = {
        **result.means,
        "global_step": int(restored.state.step),
        "examples": result.examples,
        "checkpoint": str(restored.checkpoint),
        "dataset": dataset.name,
    }
    known = count_known(workdir(), dataset.eval.images, chosen=restored.chosen)
    for line in known.told():
        say(line)
    print(json.dumps(row | known.row()))
    return 0


def _predict(launch: Launch) -> int:
    if bool(launch.files) == bool(FLAGS.split) or bool(FLAGS.split) != bool(FLAGS.output):
        raise UsageError(
            "--mode=predict takes either picture files, or --split=test with --output=FILE.npz."
        )
    return _predict_split(launch) if FLAGS.split else _predict_files(launch)


def _predict_split(launch: Launch) -> int:
    refuse({"center"})
    output = _file_to_write(".npz")
    from mnist_flax.use.prediction import is_classification, predict_split
    from mnist_flax.workdir.known_images import count_known

    restored = _restore({**launch.overrides, "data.eval_split": FLAGS.split})
    dataset = _load_data(restored)
    outputs = predict_split(restored, dataset.eval, output)
    told = f"{len(dataset.eval.labels):,} images"
    if is_classification(restored):
        told += f", accuracy {(outputs['classes'] == dataset.eval.labels).mean():.4f}"
    say(f"{told}, in {output}")
    for line in count_known(workdir(), dataset.eval.images, chosen=restored.chosen).told():
        say(line)
    return 0


def _file_to_write(*endings: str) -> Path:
    """Returns --output. Raises UsageError if it cannot be written, or does not end so."""
    output = expanded(FLAGS.output, "--output")
    if output.is_dir():
        raise UsageError(f"--output={output}: is a folder; name a file.")
    if not output.parent.is_dir():
        raise UsageError(f"--output={output}: name a file in a folder that exists.")
    if endings and output.suffix.lower() not in endings:
        raise UsageError(f"--output={output}: name a file that ends in {' or '.join(endings)}.")
    return output


def _predict_files(launch: Launch) -> int:
    from mnist_flax.show.terminal import draw_prediction, supports_drawing
    from mnist_flax.use.prediction import is_classification, predict_files

    restored = _restore(launch.overrides)
    colour, draw = "NO_COLOR" not in os.environ, supports_drawing(sys.stderr)
    draw = draw and is_classification(restored)
    prepared, status = _preparation(restored), 0
    for made in predict_files(restored, launch.files, prepared):
        if isinstance(made, UserError):
            say(f"Error: {made}")
            status = made.exit_status
            continue
        if made.picture.done:
            say(f"{made.file}: {', '.join(made.picture.done)}")
        if made.picture.warning:
            say(f"{made.file}: Warning: {made.picture.warning}.")
        if draw:
            names, best = restored.class_names, int(made.outputs["classes"])
            title, shares = f"{made.file}: {names[best]}", made.outputs["probabilities"]
            say(draw_prediction(made.image, shares, names, title=title, colour=colour))
        print(json.dumps(made.row()), flush=True)
    return status


def _preparation(restored: "Restored") -> "Preparation":
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


def _report(launch: Launch) -> int:
    _write_report(launch, FLAGS.checkpoint, launch.overrides)
    return 0


def _write_report(launch: Launch, which: str, overrides: Mapping[str, Any]) -> None:
    """Writes the run's report, beside the runs of --compare, and prints its path."""
    from mnist_flax.report import Recipe, write_report

    restored = _restore(overrides, which=which)
    dataset = _load_data(restored)
    others = (
        (path, other, _load_data(other).eval)
        for path in [expanded(name, "--compare") for name in FLAGS.compare]
        for other in [_restore_other(overrides, path, which)]
    )
    recipe = Recipe(FLAGS.config, launch.recipe) if launch.recipe is not None else None
    print(write_report(workdir(), restored, dataset, others=others, recipe=recipe), flush=True)


def _sample(launch: Launch) -> int:
    if not FLAGS.output:
        raise UsageError("--output is missing: --mode=sample writes a .png or an .npz file.")
    output = _file_to_write(".png", ".npz")
    if FLAGS.count > (most := _MOST_SAMPLES[output.suffix.lower()]):
        raise UsageError(f"--count={FLAGS.count}: a {output.suffix} file takes up to {most:,}.")
    from mnist_flax.show.samples import write_samples

    restored = _restore(launch.overrides)
    write_samples(restored, FLAGS.count, output)
    say(f"{FLAGS.count:,} pictures out of the noise of seed {restored.config.seed}, in {output}")
    return 0


def _serve(launch: Launch) -> int:
    from mnist_flax.serve import serve
    from mnist_flax.use.prediction import is_classification

    restored = _restore(launch.overrides)
    draws = restored.task.sample is not None and not is_classification(restored)
    if draws:
        refuse({"center"})
    prepared = None if draws else _preparation(restored)
    serve(restored, prepared, host=FLAGS.host, port=FLAGS.port, report=say)
    return 0


def _export(launch: Launch) -> int:
    from mnist_flax.export import FORMATS, export_network, export_weights

    restored = _restore(launch.overrides)
    formats = [*FORMATS, "safetensors"] if FLAGS.format == "all" else [FLAGS.format]
    runnable = [each for each in formats if each in FORMATS]
    if runnable:
        for row in export_network(workdir(), restored, _load_data(restored), runnable, say):
            print(json.dumps(row))
    if "safetensors" in formats:
        print(json.dumps(export_weights(workdir(), restored)))
    return 0


def _restore(
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


def _restore_other(overrides: Mapping[str, Any], path: Path, which: str) -> "Restored":
    if path.resolve() == workdir().resolve():
        raise UsageError(f"--compare={path}: is this run itself. Name others.")
    try:
        return _restore(overrides, path, which)
    except UserError as error:
        raise UsageError(f"--compare={path}: {error}") from error


def _load_data(restored: "Restored") -> "Dataset":
    """Loads its data, and says what there is to say of them."""
    from mnist_flax.use.restore import load_data

    dataset = load_data(restored, say)
    for note in dataset.notes:
        say(note)
    return dataset


def _use(mode: Callable[[Launch], int]) -> Callable[[Launch], int]:
    def with_kept_programs(launch: Launch) -> int:
        with kept_programs(launch, say):
            return mode(launch)

    return with_kept_programs


MODES: Mapping[str, Callable[[Launch], int]] = {
    "train": _train,  # answers signals before anything is imported
    "sweep": _sweep,  # likewise
    "check": _check,  # with no kept programs: it says how long compiling takes
    "eval": _use(_evaluate),
    "predict": _use(_predict),
    "report": _use(_report),
    "sample": _use(_sample),
    "serve": _use(_serve),
    "export": _use(_export),
}
