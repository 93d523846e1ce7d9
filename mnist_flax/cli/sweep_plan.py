"""What a sweep trains: each point for each seed, as a training command; every fault at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from mnist_flax.cli import program
from mnist_flax.cli.flags import FLAGS, Launch, required_recipe
from mnist_flax.cli.recipe import parse_overrides, swept_points
from mnist_flax.config import as_flag, flatten, overridden
from mnist_flax.config.changes import can_be_written
from mnist_flax.config.sweep import point_name
from mnist_flax.errors import UsageError

if TYPE_CHECKING:  # it brings JAX
    from mnist_flax.core.sums import Metric


@dataclass(frozen=True)
class SweepRun:
    """A point at a seed.

    Attributes:
      point: what is varied, {field: value}, the seed aside.
      seed: its config.seed.
      name: of its folder in the sweep's.
      config: after all overrides.
      arguments: of the command that trains it, --workdir aside.
    """

    point: Mapping[str, Any]
    seed: int
    name: str
    config: ConfigDict
    arguments: Sequence[str]

    @property
    def point_name(self) -> str:
        """The name of the point, for a table; that of a recipe of which nothing is varied."""
        return point_name(self.point) or Path(FLAGS.config.partition(":")[0]).stem

    def command(self, launch: Launch, folder: Path) -> list[str]:
        """Returns the ordinary training command, in its folder inside the sweep's."""
        workdir = f"--workdir={folder / self.name}"
        return [*program.again(launch.argv[0]), *self.arguments, workdir]


@dataclass(frozen=True)
class Sweep:
    """What is trained, in this order, and by which metric it is compared."""

    runs: Sequence[SweepRun]
    metric_name: str
    metric: "Metric"


class _Faults:
    """Lines, each with the points that it was found at."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, point: str, lines: Iterable[object]) -> None:
        for line in lines:
            self._found.setdefault(str(line), []).append(point)

    def raise_if_any(self, points: int) -> None:
        if self._found:
            raise UsageError("\n".join(_with_points(*each, points) for each in self._found.items()))


def _with_points(line: str, found_at: Sequence[str], points: int) -> str:
    if len(found_at) == points or not found_at[0]:
        return line
    more = f" and {len(found_at) - 1} more" if len(found_at) > 1 else ""
    return f"{line} (point {found_at[0]}{more})"


def planned(launch: Launch) -> Sweep:
    """Returns the runs of a sweep, seed by seed.

    Raises:
      UsageError: there is nothing to vary, or a wrong value anywhere: a line for each fault.
    """
    recipe = required_recipe(launch)
    seeds = _seeds()
    points = swept_points(FLAGS.config)
    if points in (None, [{}]) and not seeds:
        raise UsageError(
            "--mode=sweep: nothing is varied. Give --seeds=0,1,2, or have the recipe define "
            "get_sweep() (docs/guide/sweeps.md)."
        )
    points = [{}] if points is None else list(_plain(points))
    _refuse_unclear(points, launch, seeds)
    check, faults, runs = _checks(), _Faults(), []
    for point in points:
        try:
            of_point = _runs_of(point, launch, recipe, seeds)
            check(of_point[0].config)
            runs += of_point
        except UsageError as error:
            faults.add(point_name(point), str(error).split("\n"))
    faults.raise_if_any(len(points))
    name, metric = _compared_by(runs)
    order = list(dict.fromkeys(run.seed for run in runs))
    return Sweep(sorted(runs, key=lambda run: order.index(run.seed)), name, metric)


def _seeds() -> list[int]:
    """Returns --seeds. Raises UsageError if they are no seeds, or not all different."""
    faults = [
        f"--seeds: {text!r} is no seed: whole numbers from 0, below 2**32, such as --seeds=0,1,2."
        for text in FLAGS.seeds
        if not (text.strip().isascii() and text.strip().isdecimal() and int(text) < 2**32)
    ]
    if faults:
        raise UsageError("\n".join(faults))
    seeds = [int(text) for text in FLAGS.seeds]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds={','.join(FLAGS.seeds)}: a seed is there twice. Leave it out.")
    return seeds


def _plain(points: Sequence[Any]) -> Iterator[Any]:
    """Yields points with Python's own numbers in place of NumPy's, as np.logspace gives them."""
    for point in points:
        if isinstance(point, Mapping):
            yield {field: _own(value) for field, value in point.items()}
        else:
            yield point


def _own(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_own, value))
    return _own(value.tolist()) if hasattr(value, "tolist") else value


def _refuse_unclear(points: Sequence[Any], launch: Launch, seeds: Sequence[int]) -> None:
    """Raises UsageError for points that are none, or that do not go with the command line."""
    where, faults = f"--config={FLAGS.config}: get_sweep()", []
    if not points:
        faults.append(f"{where}: returned no points.")
    seen: dict[str, int] = {}
    varied: dict[str, None] = {}
    for number, point in enumerate(points, start=1):
        if not isinstance(point, Mapping) or not all(isinstance(field, str) for field in point):
            faults.append(
                f"{where}: point {number} is {point!r}: must be "
                "{'optimizer.learning_rate': 0.01, …}."
            )
            continue
        varied |= dict.fromkeys(point)
        faults += [
            f"{where}: point {number}: config.{field}={value!r}: no flag can say this value. Give "
            "a number, true or false, text, or a list."
            for field, value in point.items()
            if not can_be_written(value) or isinstance(value, Mapping)
        ]
        if (first := seen.setdefault(point_name(point), number)) != number:
            faults.append(f"{where}: point {number} is point {first} once more. Leave it out.")
    faults += [
        f"--config.{field}={launch.overrides[field]}: the sweep varies it. Leave it out."
        for field in varied
        if field in launch.overrides
    ]
    if seeds and "seed" in launch.overrides:
        faults.append(f"--config.seed={launch.overrides['seed']}: --seeds says it. Leave it out.")
    if seeds and "seed" in varied:
        faults.append("--seeds: the sweep varies config.seed itself. Leave one of the two out.")
    if faults:
        raise UsageError("\n".join(faults))


def _runs_of(
    point: Mapping[str, Any], launch: Launch, recipe: ConfigDict, seeds: Sequence[int]
) -> list[SweepRun]:
    """Returns a point's runs. Raises UsageError if a value is no value of its field."""
    theirs = flatten(recipe)
    given = [
        as_flag(field, value)
        for field, value in point.items()
        # There is no flag for None, and none is needed where the recipe has it.
        if not (value is None and field in theirs and theirs[field] is None)
    ]
    chosen = parse_overrides(given, recipe)
    varied = {field: value for field, value in point.items() if field != "seed"}
    own_seed = chosen.get("seed", launch.overrides.get("seed", recipe.seed))
    runs = []
    for seed in seeds or [own_seed]:
        overrides = {**launch.overrides, **chosen, "seed": seed}
        arguments = [as_flag(field, value) for field, value in overrides.items()]
        runs.append(
            SweepRun(
                point=varied,
                seed=seed,
                name=",".join(filter(None, (point_name(varied), f"seed={seed}"))),
                config=overridden(recipe, overrides)[0],
                arguments=[f"--config={FLAGS.config}", *arguments],
            )
        )
    return runs


def _checks() -> Callable[[ConfigDict], None]:
    """Returns what checks a config as training does."""
    import jax

    # Nothing is computed here, and an accelerator's memory would be lacking where runs need it.
    jax.config.update("jax_platforms", "cpu")
    from mnist_flax.training.gather import check

    return check


def _compared_by(runs: Sequence[SweepRun]) -> tuple[str, "Metric"]:
    """Returns the metric that all of them are compared by. Raises UsageError if there is none."""
    from mnist_flax.training.gather import pretended_task

    found = {}
    for run in {run.point_name: run for run in runs}.values():
        task = pretended_task(run.config)
        if not task.best:
            raise UsageError(
                f"config.task.name={run.config.task.name!r}: a sweep compares runs by the metric "
                "that chooses the best save, and this task has none here."
            )
        found[task.best] = task.metrics[task.best]
    if len(found) > 1:
        raise UsageError(
            f"get_sweep(): its points are measured by {' and '.join(found)}, which cannot be "
            "compared. Make a sweep of each."
        )
    [(name, metric)] = found.items()
    return name, metric
