"""What each mode calls. What they need is imported when they do: --help does not wait for JAX."""

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from mnist_flax.cli import program
from mnist_flax.cli.flags import FLAGS, Launch, output_file, refuse, workdir
from mnist_flax.cli.hints import say
from mnist_flax.cli.kept_programs import kept_programs
from mnist_flax.cli.restored import data_of, preparation_of, restore_asked, restore_other
from mnist_flax.config.paths import expanded
from mnist_flax.errors import UsageError

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

    restored = restore_asked(launch.overrides)
    dataset = data_of(restored)
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
    from mnist_flax.cli.predict import predict_as_asked

    return predict_as_asked(launch)


def _report(launch: Launch) -> int:
    _write_report(launch, FLAGS.checkpoint, launch.overrides)
    return 0


def _write_report(launch: Launch, which: str, overrides: Mapping[str, Any]) -> None:
    """Writes the run's report, next to the runs of --compare, and prints its path."""
    from mnist_flax.report import Recipe, write_report

    restored = restore_asked(overrides, which=which)
    dataset = data_of(restored)
    others = (
        (path, other, data_of(other).eval)
        for path in [expanded(name, "--compare") for name in FLAGS.compare]
        for other in [restore_other(overrides, path, which)]
    )
    named = shlex.join(program.name(launch.argv[0]))
    recipe = Recipe(FLAGS.config, launch.recipe, named) if launch.recipe is not None else None
    print(write_report(workdir(), restored, dataset, others=others, recipe=recipe), flush=True)


def _sample(launch: Launch) -> int:
    if not FLAGS.output:
        raise UsageError("--output is missing: --mode=sample writes a .png or an .npz file.")
    output = output_file(".png", ".npz")
    if FLAGS.count > (most := _MOST_SAMPLES[output.suffix.lower()]):
        raise UsageError(f"--count={FLAGS.count}: a {output.suffix} file takes up to {most:,}.")
    from mnist_flax.show.samples import write_samples

    restored = restore_asked(launch.overrides)
    write_samples(restored, FLAGS.count, output)
    say(f"{FLAGS.count:,} pictures out of the noise of seed {restored.config.seed}, in {output}")
    return 0


def _serve(launch: Launch) -> int:
    from mnist_flax.serve import serve
    from mnist_flax.use.prediction import is_classification

    restored = restore_asked(launch.overrides)
    draws = restored.task.sample is not None and not is_classification(restored)
    if draws:
        refuse({"center"}, "is for pictures that are read; this run draws its own. Leave it out.")
    prepared = None if draws else preparation_of(restored)
    serve(restored, prepared, host=FLAGS.host, port=FLAGS.port, report=say)
    return 0


def _export(launch: Launch) -> int:
    from mnist_flax.export import FORMATS, export_network, export_weights

    restored = restore_asked(launch.overrides)
    formats = [*FORMATS, "safetensors"] if FLAGS.format == "all" else [FLAGS.format]
    runnable = [each for each in formats if each in FORMATS]
    if runnable:
        for row in export_network(workdir(), restored, data_of(restored), runnable, say):
            print(json.dumps(row))
    if "safetensors" in formats:
        print(json.dumps(export_weights(workdir(), restored)))
    return 0


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
