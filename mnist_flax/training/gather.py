"""What a config names, found and put together: data, sources, task, timetable."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from ml_collections import ConfigDict

from mnist_flax import data
from mnist_flax.config.validation import refuse_unknown, validate
from mnist_flax.core.evaluation import Measure
from mnist_flax.core.state import Tried, traced_once, try_task
from mnist_flax.core.task import Spec, Task
from mnist_flax.data.augment import check_augment, create_augment
from mnist_flax.data.classes import lacking
from mnist_flax.data.dataset import Dataset
from mnist_flax.data.feeding import eval_source, train_source
from mnist_flax.data.handed_in import name_of
from mnist_flax.data.placement import ONE_DEVICE, Placement
from mnist_flax.data.sources import Source, num_examples
from mnist_flax.errors import UsageError
from mnist_flax.show.observers import Observer, find_observers
from mnist_flax.show.writers import WriterFunction, find_writers
from mnist_flax.tasks import create_task
from mnist_flax.training.taken import Taken
from mnist_flax.training.timetable import Timetable
from mnist_flax.use.evaluation import find_measure


@dataclass(frozen=True)
class Plan:
    """A run before it has a folder.

    Attributes:
      config: after overrides.
      dataset: what the data are; their images are reached through the two sources.
      source: of the training batches.
      eval_source: of the batches that are evaluated during training.
      extra_sources: of those that are evaluated as well, by the names of their splits.
      spec: what the task was told of the data.
      task: what is learnt.
      measure: of whole evaluations, apart from the task's means.
      observers: of the task and of the config.
      writers: of the config.
      times: when what happens.
      tried: the form of its state, and its slow layers.
      placement: the devices that the run is on.
      taken: networks of other runs that a start takes in; None for none.
    """

    config: ConfigDict
    dataset: Dataset
    source: Source
    eval_source: Source
    extra_sources: Mapping[str, Source]
    spec: Spec
    task: Task
    measure: Measure
    observers: tuple[Observer, ...]
    writers: tuple[WriterFunction, ...]
    times: Timetable
    tried: Tried
    placement: Placement = ONE_DEVICE
    taken: Taken | None = None


def check(config: ConfigDict, given: bool = False) -> None:
    """Raises UsageError with every fault of a config, before any data is loaded.

    Args:
      config: after overrides.
      given: whether the data are handed in, and not those that it names.
    """
    validate(
        config,
        others=(
            refuse_unknown,
            pretended_task,
            lambda c: find_observers(c.observers or ()),  # None is reported already
            lambda c: find_writers(c.writers or ()),
            lambda c: create_augment(c.augment),
            lambda c: data.check(c.data, given),
            _refuse_extra_measures,
            _refuse_wrong_length,
        ),
        no_steps=True,
    )
    if config.tensorboard:  # it may not be installed
        import mnist_flax.show.tensorboard  # noqa: F401


def pretended_task(config: ConfigDict) -> Task:
    """Builds the task before there are data: digits and a million steps stand for what they say."""
    # As many classes as have weights: whether the data have as many is seen with them.
    names = tuple(map(str, range(len(config.class_weights or "0123456789"))))
    spec = Spec((28, 28, 1), names, config.num_steps or 10**6)
    return create_task(config, spec)


def _refuse_extra_measures(config: ConfigDict) -> None:
    """Raises UsageError for extra splits of a task that measures more than means over images."""
    measure = ""
    if config.data.extra_eval_splits:
        with contextlib.suppress(UsageError):  # it is reported already
            measure = pretended_task(config).measure
    if measure:
        raise UsageError(
            f"config.data.extra_eval_splits: the task {config.task.name!r} does not use it: what "
            "it measures is no mean over the images of a split, but its drawings, say "
            "(Task.measure). Leave it out."
        )


def _refuse_wrong_length(config: ConfigDict) -> None:
    """Raises UsageError for a run without steps, or for steps where nothing is trained."""
    try:
        trains = pretended_task(config).trains
    except UsageError:  # it is reported already; whether there is anything to train is not known
        return
    if trains and config.num_steps == 0:
        raise UsageError("config.num_steps=0: must be at least 1.")
    if not trains and config.num_steps != 0:
        field = "num_steps" if config.num_steps is not None else "num_epochs"
        raise UsageError(
            f"config.{field}={config[field]}: the task {config.task.name!r} trains nothing; leave "
            "config.num_steps at 0."
        )


def gather(
    config: ConfigDict,
    report: Callable[[str], None],
    placement: Placement = ONE_DEVICE,
    given: Any = None,
) -> Plan:
    """Loads the data, makes the task, and traces it once.

    Args:
      config: checked.
      report: gets a line about a download.
      placement: the devices that the run is on.
      given: data that are handed in, as data.handed_in.read takes them; None for those that the
        config names.

    Raises:
      UserError: the data are missing or faulty, or the task does not fit them.
    """
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        # A scatter on uneven parts ends the process, from C++.
        uneven = "under JAX_ENABLE_X64 XLA cuts no batch into unequal parts, one for each device"
        placement.require_equal_parts(config.batch_size, uneven)
    if given is not None:
        config = config.copy_and_resolve_references()
        config.data.name = name_of(config.data)
    dataset = data.load(config.data, report=report, given=given)
    dataset = replace(dataset, notes=(*dataset.notes, *lacking(dataset)))
    times = Timetable.from_config(config, num_examples(config, dataset))
    spec = Spec(dataset.train.images.shape[1:], dataset.class_names, times.total_steps)
    task = traced_once(create_task(config, spec))
    tried = try_task(task, spec, config.task.name, config.batch_size)
    check_augment(config.augment, spec.image_shape)
    return Plan(
        config=config,
        dataset=dataset,
        source=train_source(config, dataset, placement),
        eval_source=eval_source(dataset.choosing, config.batch_size, placement),
        extra_sources={
            name: eval_source(extra.split, config.batch_size, placement)
            for name, extra in dataset.extra.items()
        },
        spec=spec,
        task=task,
        measure=find_measure(task, config, dataset, dataset.choosing.images),
        observers=find_observers((*task.observers, *config.observers)),
        writers=find_writers(config.writers),
        times=times,
        tried=tried,
        placement=placement,
    )
