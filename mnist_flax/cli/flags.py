"""Every flag, which mode takes which, and what a command line says with them.

The flags of --config.… are as many as a recipe has fields: recipe.py adds those that are given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from mnist_flax.cli.flag_kinds import define_one_of, define_whole, define_yes_no
from mnist_flax.cli.recipe import define_overrides, load_recipe, other_faults
from mnist_flax.config.paths import expanded
from mnist_flax.config.registry import nearest
from mnist_flax.errors import UsageError

_TOGETHER = ("distributed", "coordinator", "num_processes", "process_id", "join_seconds")
# What each mode takes besides --config, --workdir and --mode; anything else is a mistake.
TAKES = {
    "train": {"init_from", "init_map", "checkpoint", "report", "profile", *_TOGETHER},
    "sweep": {"seeds", "jobs"},
    "check": {"init_from", "init_map", "checkpoint", "distributed"},
    "eval": {"checkpoint"},
    "predict": {"checkpoint", "center", "split", "output"},
    "report": {"checkpoint", "compare"},
    "sample": {"checkpoint", "count", "output"},
    "serve": {"checkpoint", "center", "host", "port"},
    "export": {"checkpoint", "format"},
}
FLAGS = flags.FLAGS
flags.DEFINE_string("config", None, "The recipe: a name, tutorial, or a file, configs/tutorial.py")
flags.DEFINE_string("workdir", None, "The run's folder. Default: runs/<name of the config file>")
define_one_of("mode", "train", list(TAKES), "What to do")
flags.DEFINE_string("checkpoint", "latest", "which to use, or --init_from: latest, best, or a step")
flags.DEFINE_string("init_from", None, "train: a workdir or a file to start from the parameters of")
flags.DEFINE_multi_string("init_map", [], "train: their names there and here, 'old/(.*)=>\\1'")
define_yes_no("center", None, "true: as MNIST's digits; false: as is. Default: as the data are")
flags.DEFINE_string("split", None, "predict: a split, such as test or train[:100], for files")
flags.DEFINE_string("output", None, "predict --split: the .npz file to write; sample: .png or .npz")
define_whole("count", 64, "sample: how many pictures are drawn", 1)
define_yes_no("report", False, "train: write the report of the finished run, too")
flags.DEFINE_string("profile", None, "train: 100:120 traces the steps 101 to 120, into profile/")
flags.DEFINE_list("seeds", [], "sweep: whole numbers, 0,1,2: a run for each of them")
define_whole("jobs", None, "sweep: how many run at once. Default: one a core", 1)
define_one_of(
    "distributed",
    "off",
    ["off", "auto", "manual"],
    "train: with other processes; auto: of SLURM, Open MPI, Kubernetes, TPU; manual: see below",
)
flags.DEFINE_string("coordinator", None, "manual: HOST:PORT, where the first process listens")
define_whole("num_processes", None, "manual: how many there are", 1)
define_whole("process_id", None, "manual: which this is, from 0", 0)
define_whole("join_seconds", 45, "distributed: how long one waits for all", 1)
flags.DEFINE_list("compare", [], "report: other workdirs to compare with, on the same images")
_FORMATS = ["stablehlo", "onnx", "safetensors", "all"]
define_one_of("format", "stablehlo", _FORMATS, "export: which files")
flags.DEFINE_string("host", "127.0.0.1", "serve: the address of this machine to answer at")
define_whole("port", 8000, "serve: 0 is any free one", 0, 65535)
_OURS = (
    *("config", "workdir", "mode", "checkpoint", "init_from", "init_map", "center", "split"),
    *("output", "count", "report", "profile", "seeds", "jobs", "compare", "host", "port"),
    "format",
    *_TOGETHER,
)


@dataclass(frozen=True)
class Launch:
    """What a command line says, apart from FLAGS.

    Attributes:
      argv: the command line, as it was given.
      files: its arguments that are no flags.
      recipe: what the file of --config returns, without overrides; None without --config.
      overrides: {'optimizer.learning_rate': 0.01, …}, of the fields' own types.
    """

    argv: Sequence[str]
    files: Sequence[str]
    recipe: ConfigDict | None
    overrides: Mapping[str, Any]


def parse(argv: Sequence[str]) -> Launch:
    """Fills FLAGS and executes the recipe, once. Raises UsageError with every fault."""
    try:
        arguments = FLAGS.read_flags_from_files(argv, force_gnu=False)  # --flagfile
        recipe = load_recipe(arguments)
        overrides = _overrides(arguments, recipe)
        files = FLAGS(arguments)[1:]
    except flags.IllegalFlagValueError as error:
        raise UsageError(str(error).removeprefix("flag ")) from error
    except flags.UnrecognizedFlagError as error:
        near = nearest(error.flagname, _OURS)
        raise UsageError(f"--{error.flagname}: no such flag.{near} See --help.") from error
    except (flags.Error, ValueError) as error:  # the latter of --nocenter=3
        raise UsageError(f"{str(error).rstrip('.')}. See --help.") from error
    refuse(set(_OURS) - TAKES[FLAGS.mode] - {"config", "workdir", "mode"})
    if files and FLAGS.mode != "predict":
        raise UsageError(
            f"the argument {files[0]!r}: --mode=predict takes files, and --mode={FLAGS.mode} takes "
            "none. Leave it out, or name that mode."
        )
    return Launch(argv, files, recipe, overrides())


def _overrides(
    arguments: Sequence[str], recipe: ConfigDict | None
) -> Callable[[], Mapping[str, Any]]:
    """Defines flags for --config.…. Raises UsageError with their faults, and the config's own."""
    try:
        return define_overrides(arguments, recipe, FLAGS)
    except UsageError as error:
        others = other_faults(arguments, recipe) if recipe is not None else []
        raise UsageError("\n".join([str(error), *others])) from error


def required_recipe(launch: Launch) -> ConfigDict:
    """Returns the recipe. Raises UsageError without --config."""
    if launch.recipe is None:
        raise UsageError("--config is missing: --config=tutorial, or a file of your own.")
    return launch.recipe


def refuse(names: set[str], why: str = "") -> None:
    """Raises UsageError if any of these flags is given: it would be ignored.

    Args:
      names: of flags.
      why: they are not taken here. By default: because they are other modes'.
    """
    given = sorted(name for name in names if FLAGS[name].present)
    if given:
        raise UsageError("\n".join(f"--{name}: {why or _whose(name)}" for name in given))


def _whose(name: str) -> str:
    """Says which modes take a flag."""
    modes = [mode for mode, taken in TAKES.items() if name in taken]
    listed = " and ".join(filter(None, [", ".join(modes[:-1]), modes[-1]]))
    return f"is for --mode={listed}, not for --mode={FLAGS.mode}. Leave it out, or change the mode."


def workdir() -> Path:
    """Returns --workdir, or runs/ and the name of the config file, with its variant.

    Of a sweep it is the folder of its runs' folders, and its name ends in -sweep.
    """
    if FLAGS.workdir:
        return expanded(FLAGS.workdir, "--workdir")
    if FLAGS.config is None:
        raise UsageError("--workdir is missing: name the run's folder, or its --config.")
    path, _, variant = FLAGS.config.partition(":")
    sweep = "sweep" if FLAGS.mode == "sweep" else ""
    return Path("runs") / "-".join(filter(None, (Path(path).stem, variant, sweep)))


def output_file(*endings: str) -> Path:
    """Returns --output. Raises UsageError if it cannot be written, or does not end so."""
    output = expanded(FLAGS.output, "--output")
    if output.is_dir():
        raise UsageError(f"--output={output}: is a folder; name a file.")
    if not output.parent.is_dir():
        raise UsageError(f"--output={output}: name a file in a folder that exists.")
    if endings and output.suffix.lower() not in endings:
        raise UsageError(f"--output={output}: name a file that ends in {' or '.join(endings)}.")
    return output


def describe_flags() -> str:
    """Returns a line for each flag, for --help."""
    return "\n".join(f"  --{name:<11} {FLAGS[name].help}" for name in _OURS)
