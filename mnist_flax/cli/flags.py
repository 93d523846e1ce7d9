"""Every flag, which mode takes which, and what a command line says with them.

The flags of --config.… are as many as a recipe has fields: recipe.py adds those that are given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from mnist_flax.cli.recipe import define_overrides, load_recipe
from mnist_flax.config.paths import expanded
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
flags.DEFINE_enum("mode", "train", list(TAKES), "What to do")
flags.DEFINE_string("checkpoint", "latest", "which to use, or --init_from: latest, best, or a step")
flags.DEFINE_string("init_from", None, "train: a workdir or a file to start from the parameters of")
flags.DEFINE_multi_string("init_map", [], "train: their names there and here, 'old/(.*)=>\\1'")
flags.DEFINE_bool("center", None, "true: as MNIST's digits; false: as is. Default: as the data are")
flags.DEFINE_string("split", None, "predict: a split, such as test or train[:100], for files")
flags.DEFINE_string("output", None, "predict --split: the .npz file to write; sample: .png or .npz")
flags.DEFINE_integer("count", 64, "sample: how many pictures are drawn", lower_bound=1)
flags.DEFINE_bool("report", False, "train: write the report of the finished run, too")
flags.DEFINE_string("profile", None, "train: 100:120 traces the steps 101 to 120, into profile/")
flags.DEFINE_list("seeds", [], "sweep: whole numbers, 0,1,2: a run for each of them")
flags.DEFINE_integer(
    "jobs", None, "sweep: how many run at once. Default: one a core", lower_bound=1
)
flags.DEFINE_enum(
    "distributed",
    "off",
    ["off", "auto", "manual"],
    "train: with other processes; auto: of SLURM, Open MPI, Kubernetes, TPU; manual: see below",
)
flags.DEFINE_string("coordinator", None, "manual: HOST:PORT, where the first process listens")
flags.DEFINE_integer("num_processes", None, "manual: how many there are", lower_bound=1)
flags.DEFINE_integer("process_id", None, "manual: which this is, from 0", lower_bound=0)
flags.DEFINE_integer("join_seconds", 45, "distributed: how long one waits for all", lower_bound=1)
flags.DEFINE_list("compare", [], "report: other workdirs to compare with, on the same images")
_FORMATS = ["stablehlo", "onnx", "safetensors", "all"]
flags.DEFINE_enum("format", "stablehlo", _FORMATS, "export: which files")
flags.DEFINE_string("host", "127.0.0.1", "serve: the address of this machine to answer at")
flags.DEFINE_integer("port", 8000, "serve: 0 is any free one", lower_bound=0, upper_bound=65535)
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
        overrides = define_overrides(arguments, recipe, FLAGS)
        files = FLAGS(arguments)[1:]
    except flags.Error as error:
        raise UsageError(f"{error} See --help.") from error
    refuse(set(_OURS) - TAKES[FLAGS.mode] - {"config", "workdir", "mode"})
    if files and FLAGS.mode != "predict":
        raise UsageError(f"the argument {files[0]!r}: {_nothing_to_do_with_it()}")
    return Launch(argv, files, recipe, overrides())


def required_recipe(launch: Launch) -> ConfigDict:
    """Returns the recipe. Raises UsageError without --config."""
    if launch.recipe is None:
        raise UsageError("--config is missing: --config=tutorial, or a file of your own.")
    return launch.recipe


def refuse(names: set[str]) -> None:
    """Raises UsageError if any of these flags is given: it would be ignored."""
    if given := sorted(name for name in names if FLAGS[name].present):
        raise UsageError(f"--{given[0]}: {_nothing_to_do_with_it()}")


def _nothing_to_do_with_it() -> str:
    return f"--mode={FLAGS.mode} takes no such thing here; see --help."


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
