"""Writes what reproduce.py's runs came to: RESULTS.md and a picture of each recipe's curves."""

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
from experiments import Experiment, is_finished, read_rows
from matplotlib import pyplot as plt
from matplotlib import ticker
from ml_collections import ConfigDict

from mnist_flax.models import create_model

Rows = list[dict[str, Any]]


# What follows this line in RESULTS.md is written by hand, and stays.
_OTHERS = "\n## Networks that draw\n"


def write_report(experiments: Iterable[Experiment], runs: Path, folder: Path) -> int:
    """Writes RESULTS.md and <recipe>.png into a folder, about the finished runs alone.

    Returns:
      An exit status: 1 if no run is finished, and nothing written.
    """
    done = {
        experiment: {
            seed: runs / f"{experiment.name}-{seed}"
            for seed in experiment.seeds
            if is_finished(runs / f"{experiment.name}-{seed}")
        }
        for experiment in experiments
    }
    done = {experiment: workdirs for experiment, workdirs in done.items() if workdirs}
    if not done:
        print(f"No run in {runs} is finished: there is nothing to report.", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in dict.fromkeys(experiment.config for experiment in done):
        group = {
            e.name: [*map(read_rows, w.values())] for e, w in done.items() if e.config == recipe
        }
        published = next(e.published for e in done if e.config == recipe)
        _draw(group, published, folder / f"{recipe}.png")
    lines = [*_HEAD, *(_table_row(e, w) for e, w in done.items()), ""]
    lines += [
        *_losses(done),
        *_dead(runs / "dead_logits.json"),
        *_pictures(done),
        *_conditions(done),
    ]
    (folder / "RESULTS.md").write_text("\n".join(lines) + "\n" + _others(folder / "RESULTS.md"))
    print(f"Wrote {folder / 'RESULTS.md'}")
    return 0


def _others(path: Path) -> str:
    """Returns the chapters that are not about these runs, as they stand in the file."""
    text = path.read_text() if path.exists() else ""
    _, line, rest = text.partition(_OTHERS)
    return line + rest


_HEAD = """# Results

All five tutorials on the full MNIST, as `python benchmarks/reproduce.py` runs them. Accuracies are
those of the images held out, running statistics in use and dropout off; every image counts once.
Where there are several seeds, the lowest and the highest are given. "Published" is what the
tutorial's text shows for its own run. A `_mended` row is the recipe of that name without the ReLU
on its logits; the published figures next to it are those with the ReLU. "First" is a run's first
evaluation: after one epoch, for `tutorial` after 1,000 steps.

""".splitlines()
_COLUMNS = (
    *("run", "seeds", "published: first, best, last", "first", "best", "last", "last loss"),
    *("parameters", "steps", "minutes", "steps/s"),
)
_HEAD += [f"| {' | '.join(_COLUMNS)} |", "|---|--:|---" + 8 * "|--:" + "|"]


def _table_row(experiment: Experiment, workdirs: dict[int, Path]) -> str:
    runs = [read_rows(workdir) for workdir in workdirs.values()]
    evaluations = [[row for row in rows if row.get("split") == "eval"] for rows in runs]
    rates = [_rate(rows) for rows in runs]
    steps = evaluations[0][-1]["step"]
    published = [experiment.published.get(key) for key in ("first", "best", "last")]
    cells = [
        f"`{experiment.name}`",
        ", ".join(map(str, workdirs)),
        ", ".join("–" if value is None else f"{value:.4g}" for value in published),
        _range([rows[0]["accuracy"] for rows in evaluations]),
        _range([max(row["accuracy"] for row in rows) for rows in evaluations]),
        _range([rows[-1]["accuracy"] for rows in evaluations]),
        _range([rows[-1]["loss"] for rows in evaluations], lambda value: f"{value:.4g}"),
        f"{_parameters(next(iter(workdirs.values()))):,}",
        f"{steps:,}",
        _range([steps / rate / 60 for rate in rates], lambda value: f"{value:.2g}"),
        _range(rates, lambda value: f"{value:.1f}"),
    ]
    return f"| {' | '.join(cells)} |"


def _range(values: list[float], form: Callable[[float], str] = lambda v: f"{v:.4f}") -> str:
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low}–{high}"


def _rate(rows: Rows) -> float:
    """Steps per second: the median over the training rows, compilation and evaluation apart."""
    rates = [row["steps_per_second"] for row in rows if row.get("split") == "train"]
    return statistics.median(rate for rate in rates[1:] if rate)


def _parameters(workdir: Path) -> int:
    config = ConfigDict(json.loads((workdir / "config.json").read_text())["config"])
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    shapes = jax.eval_shape(create_model(config.model, 10).init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def _losses(done: dict[Experiment, dict[int, Path]]) -> list[str]:
    """What the tutorials print besides accuracies."""
    lines = []
    for experiment, workdirs in done.items():
        rows = read_rows(next(iter(workdirs.values())))
        if experiment.name == "tutorial":
            losses = [row["loss"] for row in rows if row.get("split") == "train"][:2]
            lines.append(
                f"`tutorial`, training loss: published 2.360 at step 1 and 2.131 at step 101 (of "
                f"one batch); here {losses[0]:.3f} at step 1 and {losses[1]:.3f} over steps 2 to "
                "100. Published test loss after 20,000 steps: 0.0902."
            )
        if experiment.name == "adam":
            sums = [row["loss_sum"] for row in rows if "loss_sum" in row]
            if not sums:  # a quick run ends within its first epoch
                continue
            lines.append(
                f"`adam`, the sum of an epoch's batch losses: {sums[0]:,.2f} in the first epoch, "
                f"{sums[-1]:,.2f} in the last: {sums[-1] / sums[0]:.2g} of it. The tutorial gives "
                "no figures."
            )
    return [item for line in lines for item in (line, "")]


def _dead(path: Path) -> list[str]:
    if not path.exists():
        return []
    counted = json.loads(path.read_text())
    lines = [
        "## What the ReLU on the logits costs",
        "",
        "A class whose logit is zero for every image gets no gradient of its own; it may come back "
        "only if the layers below happen to change in its favour. Ten starts of each recipe as "
        f"published, {counted['steps']} steps each, counting the classes whose logit is zero for "
        "all images held out (`benchmarks/dead_logits.py`):",
        "",
        "| recipe | starts with a dead class | dead classes of ten, start by start | accuracy |",
        "|---|--:|---|--:|",
    ]
    for recipe, rows in counted["runs"].items():
        dead = [row["dead"] for row in rows]
        lines.append(
            f"| `{recipe}` | {sum(map(bool, dead))} of {len(dead)} | {', '.join(map(str, dead))} | "
            f"{_range([row['accuracy'] for row in rows])} |"
        )
    return [*lines, ""]


def _pictures(done: dict[Experiment, dict[int, Path]]) -> list[str]:
    recipes = dict.fromkeys(experiment.config for experiment in done)
    return ["## Curves", "", *(f"![{recipe}]({recipe}.png)" for recipe in recipes), ""]


def _draw(group: dict[str, list[Rows]], published: dict[str, float], path: Path) -> None:
    """One curve a run: the share of images held out that are taken for something else."""
    figure, axes = plt.subplots(figsize=(6.4, 3.2), dpi=80, layout="constrained")
    for number, (name, runs) in enumerate(group.items()):
        for place, rows in enumerate(runs):
            evaluations = [row for row in rows if row.get("split") == "eval"]
            errors = [100 * (1 - row["accuracy"]) for row in evaluations]
            steps = [row["step"] for row in evaluations]
            label = name if place == 0 else None
            axes.plot(steps, errors, color=f"C{number}", lw=1, marker=".", ms=3, label=label)
    for key, style in (("best", "--"), ("last", ":")):
        if key in published:
            error = 100 * (1 - published[key])
            axes.axhline(error, color="0.4", ls=style, lw=1, label=f"published, {key}")
    axes.set(xlabel="step", ylabel="error, %", yscale="log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def _conditions(done: dict[Experiment, dict[int, Path]]) -> list[str]:
    """Which machine and versions; one line for all runs that share them."""
    groups: dict[str, list[str]] = {}
    for experiment, workdirs in done.items():
        for seed, workdir in workdirs.items():
            environment = json.loads((workdir / "config.json").read_text())["environment"]
            text = ", ".join(f"{name} {value}" for name, value in environment.items())
            groups.setdefault(text, []).append(f"{experiment.name}-{seed}")
    lines = ["## Conditions", ""]
    lines += [f"- {', '.join(names)}: {text}" for text, names in groups.items()]
    return [
        *lines,
        "",
        "Steps per second is the median over the training rows, compilation and evaluations apart; "
        "minutes are the run's steps at that rate. `cores` is how many the process "
        "might use.",
    ]
