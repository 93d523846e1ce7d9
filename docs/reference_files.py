"""docs/reference/files.md: what lies in the folder of a run or a sweep. For reference.py.

reference_rows.py has what is said of rows. No place in the code knows all of it: what is said here
is held against runs that have everything turned on, and against the code, by
tests/test_reference.py.
"""

from typing import NamedTuple

from reference_markdown import code, table
from reference_rows import row_parts

from mnist_flax.cli.sweep_processes import CONSOLE_FILE
from mnist_flax.export.model_card import CARD_FILE
from mnist_flax.export.prepare_file import PREPARE_FILE
from mnist_flax.report import PREDICTIONS
from mnist_flax.workdir.files import CONFIG_FILE
from mnist_flax.workdir.kept_pictures import PICTURES
from mnist_flax.workdir.known_images import CHOSEN_ON_FILE, TRAINED_ON_FILE
from mnist_flax.workdir.rows import METRICS_FILE
from mnist_flax.workdir.weights import WEIGHTS_FILE


class File(NamedTuple):
    """What lies in a folder: `name` with <parts> that vary, who writes it, whether it may go."""

    name: str
    what: str
    written_by: str
    may_go: str


_TRAINING, _REPORT, _EXPORT, _SWEEP = (
    f"`--mode={mode}`" for mode in ("train", "report", "export", "sweep")
)
_AGAIN = "yes; the command writes it again"
RUN = (
    File(
        CONFIG_FILE,
        "every field of the run, its data (source, fingerprint, class names), and the versions and "
        "machine it was started on",
        _TRAINING,
        "no: every command but training reads it",
    ),
    File(
        METRICS_FILE,
        "[a row a line](#rows-of-metricsjsonl)",
        _TRAINING,
        "no: a run does not go on without the rows up to its save",
    ),
    File(
        "checkpoints/latest/<step>/",
        "the newest `keep_checkpoints` saves: parameters, optimizer, open sums, and digests of all",
        _TRAINING,
        "older ones; the run goes on from the newest",
    ),
    File(
        "checkpoints/best/<step>/",
        "the save of the best evaluation",
        _TRAINING,
        "yes, if you do without `--checkpoint=best`",
    ),
    File(
        "checkpoints/damaged/<folder>-<step>/",
        "saves that were damaged, moved aside with `on_damaged_checkpoint='previous'`",
        _TRAINING,
        "yes; nothing reads them",
    ),
    File(
        TRAINED_ON_FILE,
        "digests of the images that it is trained on, uint64, sorted",
        _TRAINING,
        "yes, but an evaluation no longer says that it knows images",
    ),
    File(
        CHOSEN_ON_FILE,
        "likewise of the images that choose the best save",
        _TRAINING,
        "yes, likewise; the next start of training writes it again",
    ),
    File(".lock", "held while a process trains here", _TRAINING, "yes, if none does"),
    File(".holder", "which process that was", _TRAINING, "yes, likewise"),
    File(
        f"{PICTURES}/<name>/<step>.png",
        "what a network that draws has drawn at each evaluation, always out of the same noise",
        _TRAINING,
        "yes; the report's films then lack them",
    ),
    File(
        "tensorboard/<events>",
        "event files for TensorBoard, with `config.tensorboard=true`",
        _TRAINING,
        "yes; curves are written again when the run goes on, images are not",
    ),
    File(
        "wandb/",
        "the id of the run at Weights & Biases, and what W&B keeps, with the writer `wandb`",
        _TRAINING,
        "not while the run goes on: it would be another run there",
    ),
    File(
        "profile/<first>-<last>/plugins/profile/<time>/<trace>",
        "the trace of `--profile`",
        _TRAINING,
        "yes",
    ),
    File("report/index.html", "the report, whole in itself", _REPORT, _AGAIN),
    File("report/<picture>.png", "its figures", _REPORT, _AGAIN),
    File("report/<picture>.webp", "its films, of a network that draws", _REPORT, _AGAIN),
    File(
        f"report/{PREDICTIONS}", "the network's answers to every evaluated image", _REPORT, _AGAIN
    ),
    File("export/model.stablehlo", "the network, for JAX", _EXPORT, _AGAIN),
    File("export/model.onnx", "the network, for ONNX", _EXPORT, _AGAIN),
    File(
        "export/sampler.stablehlo", "of a network that draws: pictures of latents", _EXPORT, _AGAIN
    ),
    File("export/sampler.onnx", "likewise, for ONNX", _EXPORT, _AGAIN),
    File(f"export/{WEIGHTS_FILE}", "the weights alone", _EXPORT, _AGAIN),
    File(f"export/{PREPARE_FILE}", "makes the network's input of a picture file", _EXPORT, _AGAIN),
    File(f"export/{CARD_FILE}", "what it is, how good, of what data, its limits", _EXPORT, _AGAIN),
)
OF_A_SWEEP = (
    File(
        "<what it varies>/",
        "a run, as above: `batch_size=64,seed=0`",
        _SWEEP,
        "then the sweep trains it again",
    ),
    File(f"<what it varies>/{CONSOLE_FILE}", "what it has said", _SWEEP, "yes"),
    File("sweep.md", "the table of all runs", _SWEEP, _AGAIN),
    File("sweep.json", "the table's numbers", _SWEEP, _AGAIN),
    File("sweep.png", "the table as a figure", _SWEEP, _AGAIN),
    File("sweep.html", "table, curves and what differs, on a page", _SWEEP, _AGAIN),
    File(".lock", "held while the sweep goes on", _SWEEP, "yes, if it does not"),
    File(".holder", "which process that was", _SWEEP, "yes, likewise"),
)


def files_page() -> str:
    """Returns the page."""
    heads = ("file", "what it is", "written by", "may it be deleted?")
    return (
        "\n\n".join(
            (
                _HEAD,
                f"## The folder of a run\n\n{_FOLDER}",
                table(heads, [(code(file.name), *file[1:]) for file in RUN]),
                f"## The folder of a sweep\n\n{_SWEEP_FOLDER}",
                table(heads, [(code(file.name), *file[1:]) for file in OF_A_SWEEP]),
                f"## Elsewhere\n\n{_ELSEWHERE}",
                *row_parts(),
            )
        )
        + "\n"
    )


_HEAD = """# Every file and row of a run

<!-- Written by docs/reference.py. tests/test_reference.py holds it against runs. -->"""
_FOLDER = (
    "`runs/<name of the config file>`, or `--workdir`. A folder may be copied or moved as a whole "
    "while nothing trains in it."
)
_SWEEP_FOLDER = "`runs/<name of the config file>-sweep`, or `--workdir`."
_ELSEWHERE = (
    "`~/.cache/mnist_flax/compiled` keeps compiled programs (`compilation_cache`), and "
    "`~/.cache/mnist_flax/streams` what was found in streamed data (`data.stream`): at most "
    "256 MiB each, and both may be deleted. Downloaded data lie in `downloads/` of `data.data_dir`."
)
