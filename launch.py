"""Trains, evaluates and uses a network.

    python launch.py --config=configs/tutorial.py                        train, or go on training
    python launch.py --config=RECIPE --workdir=NEW --init_from=OLD       fine-tune another run
    python launch.py --config=configs/tutorial.py --mode=eval            loss and accuracy, as JSON
    python launch.py --config=configs/tutorial.py --mode=predict 7.png   what is on this picture?
    python launch.py --config=configs/tutorial.py --mode=predict --split=test --output=test.npz

Any field of the config is a flag: --config.optimizer.learning_rate=0.01, --config.num_epochs=3,
--config.data.data_dir=FOLDER. All fields, with what they mean: mnist_flax/config.py.
"""

import contextlib
import json
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mnist_flax.config import flatten, is_harmless, overridden, require_fields
from mnist_flax.errors import UsageError, UserError
from mnist_flax.registry import nearest

FLAGS = flags.FLAGS
# No default file: overrides would be parsed on import, where nothing can catch their faults.
config_flags.DEFINE_config_file("config", None, "The recipe: configs/tutorial.py")
flags.DEFINE_string("workdir", None, "The run's folder. Default: runs/<name of the config file>")
flags.DEFINE_enum("mode", "train", ["train", "eval", "predict"], "What to do")
flags.DEFINE_string("checkpoint", "latest", "eval, predict, --init_from: latest, best, or a step")
flags.DEFINE_string("init_from", None, "train: a workdir whose parameters a new run starts from")
flags.DEFINE_bool("center", True, "predict: find the digit and centre it; false takes 28×28 as is")
flags.DEFINE_string("split", None, "predict: a split, such as test or train[:100], for files")
flags.DEFINE_string("output", None, "predict --split: the .npz file to write")
LONGER = "--config.num_steps=N"
_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "tuple": "names, such as \"'random_rotation','random_shift'\"",
}
_OURS = ("config", "workdir", "mode", "checkpoint", "init_from", "center", "split", "output")


def main(argv: Sequence[str]) -> int:
    """Parses flags, does what --mode says, returns the exit status."""
    if {"--help", "-help", "-h", "--helpfull"} & set(argv):
        print(_help())
        return 0
    sys.path.append(str(Path.cwd()))  # where 'package.module:attribute' of a config may lie
    try:
        files = _parse(argv)
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells of each of its steps
        return {"train": _train, "eval": _evaluate, "predict": _predict}[FLAGS.mode](files)
    except UserError as error:
        _say(f"Error: {error}")
        return error.exit_status
    except OSError as error:  # a full disk, a closed pipe: nothing that a traceback explains
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Interrupted.")
        return 130


def _train(files: Sequence[str]) -> int:
    from mnist_flax.stopping import StopSignals

    _refuse(files, *([] if FLAGS.init_from else ["checkpoint"]), "center", "split", "output")
    if FLAGS.config is None:
        raise UsageError("--config is missing: --config=configs/tutorial.py, or your own recipe.")
    config, notes = overridden(_recipe(sys.argv), _overrides())
    for note in notes:
        _say(note)
    with StopSignals() as stop:
        from mnist_flax.environment import keep_compiled_programs
        from mnist_flax.training import train

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
    if is_harmless("num_steps", config):
        _say(f"Train it longer:  {_command([*_without_duration(sys.argv[1:]), LONGER])}")
    return 0


def _evaluate(files: Sequence[str]) -> int:
    _refuse(files, "init_from", "center", "split", "output")
    from mnist_flax.evaluation import evaluate_restored
    from mnist_flax.inference import load_data, restore

    restored = restore(_workdir(), FLAGS.checkpoint, _overrides())
    step = int(restored.state.step)
    _say(f"Restored step {step:,} from {restored.checkpoint}")
    dataset = load_data(restored, _say)
    for note in dataset.notes:
        _say(note)
    result = evaluate_restored(restored, dataset.eval)
    row = {
        "loss": result.loss,
        "global_step": step,
        "accuracy": result.accuracy,
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
        _refuse(files, "center")
        output = Path(FLAGS.output)
        if output.is_dir() or not output.parent.is_dir():
            raise UsageError(f"--output={output}: name a file in a folder that exists.")
    _refuse([], "init_from")
    from mnist_flax.inference import load_data, restore
    from mnist_flax.prediction import predict_files, predict_split
    from mnist_flax.terminal import draw_prediction, supports_drawing

    overrides = _overrides() | ({"data.eval_split": FLAGS.split} if FLAGS.split else {})
    restored = restore(_workdir(), FLAGS.checkpoint, overrides)
    _say(f"Restored step {int(restored.state.step):,} from {restored.checkpoint}")
    if FLAGS.split:
        dataset = load_data(restored, _say)
        for note in dataset.notes:
            _say(note)
        accuracy = predict_split(restored, dataset.eval, output)
        _say(f"{len(dataset.eval.labels):,} images, accuracy {accuracy:.4f}, in {FLAGS.output}")
        return 0
    colour, draw = "NO_COLOR" not in os.environ, supports_drawing(sys.stderr)
    for made in predict_files(restored, files, center=FLAGS.center):
        if draw:
            names = restored.class_names
            title = f"{made.file}: {names[made.best_class]}"
            _say(draw_prediction(made.image, made.probabilities, names, title=title, colour=colour))
        print(json.dumps(made.row()), flush=True)
    return 0


def _parse(argv: Sequence[str]) -> list[str]:
    """Fills FLAGS; returns the arguments that are no flags. Raises UsageError with every fault."""
    recipe = _recipe(argv)
    if recipe is None and any(re.match(r"--?(no)?config\.", argument) for argument in argv):
        raise UsageError("--config.… overrides a recipe: name it with --config=FILE.")
    if recipe is not None and (faults := _override_faults(argv, recipe)):
        raise UsageError("\n".join(faults))
    try:
        return FLAGS(argv)[1:]
    except flags.Error as error:
        raise UsageError(f"{error} See --help.") from error


def _recipe(argv: Sequence[str]) -> ConfigDict | None:
    """Loads the config file alone, without overrides; None if none is named."""
    given = [i for i, argument in enumerate(argv) if re.match(r"--?config(=|$)", argument)]
    if not given:
        return None
    _, equals, value = argv[given[-1]].partition("=")
    value = value if equals else "".join(argv[given[-1] + 1 : given[-1] + 2])
    path = Path(value.partition(":")[0])
    if not path.is_file():
        near = nearest(path.stem, [file.stem for file in Path("configs").glob("*.py")])
        raise UsageError(f"--config={value}: there is no file {path}.{near}")
    sys.path.append(str(path.resolve().parent))  # 'package.module:…' may lie beside the recipe
    try:
        recipe = _parse_config([argv[0], f"--config={value}"]).config
        require_fields(recipe)
        return recipe
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"--config={value}: {_fault_in(path, error)}") from error


def _parse_config(argv: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=list(argv))
    values(argv)
    return values


def _fault_in(path: Path, error: BaseException) -> str:
    """Returns 'line 12: TypeError: …' for an exception that a config file raised."""
    while isinstance(error, flags.Error) or str(error).startswith("Error whilst parsing"):
        if error.__context__ is None:
            break
        error = error.__context__  # what ml_collections and absl wrapped
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    what = str(error).strip("'\"").splitlines()[0][:160] if str(error) else ""
    return f"{where}{type(error).__name__}: {what}"


def _override_faults(argv: Sequence[str], recipe: ConfigDict) -> list[str]:
    """Tries every --config.field=value alone, so that all faults are told at once."""
    fields, faults = flatten(recipe), []
    first = next(i for i, argument in enumerate(argv) if re.match(r"--?config(=|$)", argument))
    source = argv[first : first + 1 if "=" in argv[first] else first + 2]
    for i, argument in enumerate(argv):
        match = re.match(r"--?(?:no)?config\.([^=]+)(=?)(.*)", argument)
        if match is None:
            continue
        name, equals, value = match.groups()
        if name not in fields:
            inside = [field for field in fields if field.startswith(name + ".")]
            hint = f" It is a section; set {inside[0]} or another." if inside else ""
            faults.append(f"--config.{name}: no such field.{hint or nearest(name, fields)}")
            continue
        section, _, leaf = name.rpartition(".")
        kind = (recipe[section] if section else recipe).get_type(leaf).__name__
        apart = [] if equals or kind == "bool" else argv[i + 1 : i + 2]  # --config.seed 3
        try:
            _parse_config([argv[0], *source, argument, *apart])
        except flags.Error:
            shown = value if equals else " ".join(apart)
            faults.append(f"--config.{name}={shown}: the value must be {_KINDS.get(kind, kind)}.")
    return faults


def _refuse(files: Sequence[str], *names: str) -> None:
    """Raises UsageError for what this mode would ignore: a mistake."""
    given = [f"the argument {files[0]!r}"] if files else []
    given += [f"--{name}" for name in names if FLAGS[name].present]
    if given:
        raise UsageError(f"{given[0]}: --mode={FLAGS.mode} takes no such thing here; see --help.")


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


def _without_duration(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without --config.num_steps and --config.num_epochs."""
    kept, skip = [], False
    for argument in arguments:
        match = re.fullmatch(r"--?config\.num_(?:steps|epochs)(=.*)?", argument)
        if not match and not skip:
            kept.append(argument)
        skip = bool(match and not match[1])  # its value stands apart
    return kept


def _help() -> str:
    rows = [f"  --{name:<11} {FLAGS[name].help}" for name in _OURS]
    return f"{__doc__}\n" + "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
