"""Trains, evaluates and uses a network.

    python launch.py --config=configs/tutorial.py                        train, or go on training
    python launch.py --config=RECIPE --workdir=NEW --init_from=OLD       fine-tune another run
    python launch.py --config=configs/tutorial.py --mode=eval            loss and accuracy, as JSON
    python launch.py --config=configs/tutorial.py --mode=predict 7.png   what is on this picture?
    python launch.py --config=configs/tutorial.py --mode=predict --split=test --output=test.npz
    python launch.py --config=configs/tutorial.py --mode=serve           a page to draw digits on
    python launch.py --config=configs/tutorial.py --mode=report          curves, mistakes, … in HTML
    python launch.py --config=configs/tutorial.py --mode=export          a file to use it elsewhere

Any field of the config is a flag: --config.optimizer.learning_rate=0.01, --config.num_epochs=3,
--config.data.data_dir=FOLDER. All fields, with what they mean: mnist_flax/config/fields.py.
"""

import contextlib
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from mnist_flax.cli.recipe import load_recipe, override_faults, to_go_on
from mnist_flax.config import is_harmless, overridden
from mnist_flax.errors import UsageError, UserError

if TYPE_CHECKING:  # they bring JAX, which --help does not wait for
    from mnist_flax.data.dataset import Dataset
    from mnist_flax.use.restore import Restored

# What each mode takes besides --config, --workdir and --mode; anything else is a mistake.
_TAKES = {
    "train": {"init_from", "checkpoint", "report"},
    "eval": {"checkpoint"},
    "predict": {"checkpoint", "center", "split", "output"},
    "report": {"checkpoint", "compare"},
    "serve": {"checkpoint", "center", "host", "port"},
    "export": {"checkpoint", "format"},
}
FLAGS = flags.FLAGS
# No default file: overrides would be parsed on import, where nothing can catch their faults.
config_flags.DEFINE_config_file("config", None, "The recipe: configs/tutorial.py")
flags.DEFINE_string("workdir", None, "The run's folder. Default: runs/<name of the config file>")
flags.DEFINE_enum("mode", "train", list(_TAKES), "What to do")
flags.DEFINE_string("checkpoint", "latest", "which to use, or --init_from: latest, best, or a step")
flags.DEFINE_string("init_from", None, "train: a workdir whose parameters a new run starts from")
flags.DEFINE_bool("center", True, "find the digit and centre it; false takes 28×28 pictures as is")
flags.DEFINE_string("split", None, "predict: a split, such as test or train[:100], for files")
flags.DEFINE_string("output", None, "predict --split: the .npz file to write")
flags.DEFINE_bool("report", False, "train: write the report of the finished run, too")
flags.DEFINE_list("compare", [], "report: other workdirs to compare with, on the same images")
flags.DEFINE_enum("format", "stablehlo", ["stablehlo", "onnx", "all"], "export: which files")
flags.DEFINE_string("host", "127.0.0.1", "serve: the address of this machine to answer at")
flags.DEFINE_integer("port", 8000, "serve: 0 is any free one", lower_bound=0, upper_bound=65535)
LONGER = "--config.num_steps=N"
_OURS = (
    *("config", "workdir", "mode", "checkpoint", "init_from", "center", "split", "output"),
    *("report", "compare", "host", "port", "format"),
)


def main(argv: Sequence[str]) -> int:
    """Parses flags, does what --mode says, returns the exit status."""
    if {"--help", "-help", "-h", "--helpfull"} & set(argv):
        print(_help())
        return 0
    sys.path.append(str(Path.cwd()))  # where 'package.module:attribute' of a config may lie
    try:
        files = _parse(argv)
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells of each of its steps
        modes = {"train": _train, "eval": _evaluate, "predict": lambda: _predict(files)}
        modes |= {"report": _report, "serve": _serve, "export": _export}
        _refuse(set(_OURS) - _TAKES[FLAGS.mode] - {"config", "workdir", "mode"})
        if files and FLAGS.mode != "predict":
            raise UsageError(f"the argument {files[0]!r}: {_nothing_to_do_with_it()}")
        return modes[FLAGS.mode]()
    except UserError as error:
        _say(f"Error: {error}")
        return error.exit_status
    except OSError as error:  # a full disk, a closed pipe: nothing that a traceback explains
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Interrupted.")
        return 130


def _train() -> int:
    from mnist_flax.training.signals import StopSignals

    if not FLAGS.init_from:
        _refuse({"checkpoint"})
    if FLAGS.config is None:
        raise UsageError("--config is missing: --config=configs/tutorial.py, or your own recipe.")
    config, notes = overridden(load_recipe(sys.argv), _overrides())
    for note in notes:
        _say(note)
    with StopSignals() as stop:
        from mnist_flax.training import train
        from mnist_flax.training.compilation import keep_compiled_programs

        if folder := keep_compiled_programs():
            _say(f"Compiled programs are kept in {folder}.")
        init_from = (Path(FLAGS.init_from), FLAGS.checkpoint) if FLAGS.init_from else None
        train(config, _workdir(), should_stop=stop.requested, init_from=init_from)
    if stop.signal is not None:
        _say(f"Go on with: {_command(sys.argv[1:])}")
        return 128 + stop.signal
    run = [f"--config={FLAGS['config'].config_filename}", f"--workdir={_workdir()}"]
    _say(f"Evaluate it with: {_command([*run, '--mode=eval', '--checkpoint=best'])}")
    _say(f"Ask it with:      {_command([*run, '--mode=predict', 'PICTURE.png'])}")
    if not FLAGS.report:
        _say(f"Look at it with:  {_command([*run, '--mode=report'])}")
    if is_harmless("num_steps", config):
        _say(f"Train it longer:  {_command([*to_go_on(sys.argv[1:]), LONGER])}")
    if FLAGS.report:
        _write_report("latest", {})
    return 0


def _evaluate() -> int:
    from mnist_flax.use.evaluation import evaluate_restored

    restored = _restore(_overrides())
    dataset = _load_data(restored)
    result = evaluate_restored(restored, dataset.eval)
    row = {
        **result.means,
        "global_step": int(restored.state.step),
        "examples": result.examples,
        "checkpoint": str(restored.checkpoint),
        "dataset": dataset.name,
    }
    print(json.dumps(row))
    return 0


def _predict(files: Sequence[str]) -> int:
    if bool(files) == bool(FLAGS.split) or bool(FLAGS.split) != bool(FLAGS.output):
        raise UsageError(
            "--mode=predict takes either picture files, or --split=test with --output=FILE.npz."
        )
    if FLAGS.split:
        _refuse({"center"})
        output = Path(FLAGS.output)
        if output.is_dir() or not output.parent.is_dir():
            raise UsageError(f"--output={output}: name a file in a folder that exists.")
    from mnist_flax.show.terminal import draw_prediction, supports_drawing
    from mnist_flax.use.prediction import predict_files, predict_split

    overrides = _overrides() | ({"data.eval_split": FLAGS.split} if FLAGS.split else {})
    restored = _restore(overrides)
    if FLAGS.split:
        dataset = _load_data(restored)
        result = predict_split(restored, dataset.eval, output)
        accuracy = float((result["classes"] == dataset.eval.labels).mean())
        _say(f"{len(dataset.eval.labels):,} images, accuracy {accuracy:.4f}, in {FLAGS.output}")
        return 0
    colour, draw = "NO_COLOR" not in os.environ, supports_drawing(sys.stderr)
    for made in predict_files(restored, files, center=FLAGS.center):
        if draw:
            names = restored.class_names
            best, values = int(made.outputs["classes"]), made.outputs["probabilities"]
            title = f"{made.file}: {names[best]}"
            _say(draw_prediction(made.image, values, names, title=title, colour=colour))
        print(json.dumps(made.row()), flush=True)
    return 0


def _report() -> int:
    _write_report(FLAGS.checkpoint, _overrides())
    return 0


def _write_report(which: str, overrides: dict[str, Any]) -> None:
    """Writes the run's report, beside the runs of --compare, and prints its path."""
    from mnist_flax.report import Recipe, write_report

    restored = _restore(overrides, which=which)
    dataset = _load_data(restored)
    others = (
        (workdir, other, _load_data(other).eval)
        for workdir in map(Path, FLAGS.compare)
        for other in [_restore_other(overrides, workdir, which)]
    )
    config = load_recipe(sys.argv)
    recipe = Recipe(FLAGS["config"].config_filename, config) if config else None
    print(write_report(_workdir(), restored, dataset, others=others, recipe=recipe), flush=True)


def _serve() -> int:
    from mnist_flax.serve import serve

    restored = _restore(_overrides())
    serve(restored, host=FLAGS.host, port=FLAGS.port, center=FLAGS.center, report=_say)
    return 0


def _export() -> int:
    from mnist_flax.export import FILES, export_network

    restored = _restore(_overrides())
    dataset = _load_data(restored)
    formats = list(FILES) if FLAGS.format == "all" else [FLAGS.format]
    for row in export_network(_workdir(), restored, dataset, formats, _say):
        print(json.dumps(row))
    return 0


def _restore(
    overrides: dict[str, Any], workdir: Path | None = None, which: str | None = None
) -> "Restored":
    """Restores a network, by default that of --workdir and --checkpoint, and says which."""
    from mnist_flax.use.restore import restore

    restored = restore(workdir or _workdir(), which or FLAGS.checkpoint, overrides)
    _say(f"Restored step {int(restored.state.step):,} from {restored.checkpoint}")
    return restored


def _restore_other(overrides: dict[str, Any], workdir: Path, which: str) -> "Restored":
    if workdir.resolve() == _workdir().resolve():
        raise UsageError(f"--compare={workdir}: is this run itself. Name others.")
    try:
        return _restore(overrides, workdir, which)
    except UserError as error:
        raise UsageError(f"--compare={workdir}: {error}") from error


def _load_data(restored: "Restored") -> "Dataset":
    """Loads its data, and says what there is to say of them."""
    from mnist_flax.use.restore import load_data

    dataset = load_data(restored, _say)
    for note in dataset.notes:
        _say(note)
    return dataset


def _parse(argv: Sequence[str]) -> list[str]:
    """Fills FLAGS; returns the arguments that are no flags. Raises UsageError with every fault."""
    recipe = load_recipe(argv)
    if recipe is None and any(re.match(r"--?(no)?config\.", argument) for argument in argv):
        raise UsageError("--config.… overrides a recipe: name it with --config=FILE.")
    if recipe is not None and (faults := override_faults(argv, recipe)):
        raise UsageError("\n".join(faults))
    try:
        return FLAGS(argv)[1:]
    except flags.Error as error:
        raise UsageError(f"{error} See --help.") from error


def _refuse(names: set[str]) -> None:
    """Raises UsageError if any of these flags is given: it would be ignored."""
    if given := sorted(name for name in names if FLAGS[name].present):
        raise UsageError(f"--{given[0]}: {_nothing_to_do_with_it()}")


def _nothing_to_do_with_it() -> str:
    return f"--mode={FLAGS.mode} takes no such thing here; see --help."


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a closed pipe must not change what a run is worth
        print(text, file=sys.stderr, flush=True)


def _overrides() -> dict[str, Any]:
    return config_flags.get_override_values(FLAGS["config"]) if FLAGS.config else {}


def _workdir() -> Path:
    """--workdir, or runs/ and the name of the config file, with its variant."""
    if FLAGS.workdir:
        return Path(FLAGS.workdir)
    if FLAGS.config is None:
        raise UsageError("--workdir is missing: name the run's folder, or its --config.")
    path, _, variant = FLAGS["config"].config_filename.partition(":")
    return Path("runs") / "-".join(filter(None, (Path(path).stem, variant)))


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", sys.argv[0], *arguments])


def _help() -> str:
    rows = [f"  --{name:<11} {FLAGS[name].help}" for name in _OURS]
    return f"{__doc__}\n" + "\n".join(rows)
