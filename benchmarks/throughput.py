"""Images per second of each recipe: as we train it, in plain Flax, and in PyTorch.

    python benchmarks/throughput.py --data_dir=FOLDER                       all recipes: minutes
    python benchmarks/throughput.py --only=tutorial --quick                 a look, in seconds
    python benchmarks/throughput.py --torch_python=PYTHON --torch_peer=PROGRAM --output=FILE

`ours` is the compiled chunk of a run. `plain` is the same model, optimizer and batches without the
rewriting of mnist_flax.cpu: a jitted step, called from a Python loop. `torch` is a program of your
own, run as a process of its own while this one waits: `PYTHON PROGRAM throughput --arch=tutorial
--batch=100 --steps=60` prints {"peer": "torch 2.13.0", "ms_per_step": 61.2} as its last line. A
round takes each of them once, and the rate of a plain matrix product. Figures are medians over the
rounds, with the lowest and the highest; ratios are taken within a round.

A step's FLOPs are counted from the jaxpr of the forward pass: two for each multiplication of a
convolution or matrix product, those with padding included. The backward pass has twice as many,
without the gradient of the images, which nobody asks for. `floor` is what these would take at the
rate of the matrix product, `share` the floor's part of the time taken.
"""

import argparse
import dataclasses
import functools
import importlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import machine
import optax
from flax import linen as nn
from jax.extend.core import Jaxpr, jaxprs_in_params
from ml_collections import ConfigDict

from mnist_flax import data
from mnist_flax.core.optimizers import create_optimizer, create_schedule
from mnist_flax.core.state import PyTree, TrainState
from mnist_flax.data.dataset import Dataset
from mnist_flax.errors import UserError
from mnist_flax.keys import rng_key
from mnist_flax.models import create_model
from mnist_flax.tasks import programs
from mnist_flax.tasks.classification import apply_train
from mnist_flax.training.compilation import compile_programs, init_state, slow_layers
from mnist_flax.training.timetable import Timetable

RECIPES = sorted(path.stem for path in (machine.ROOT / "configs").glob("*.py"))
PEER_ARCHS = ("lenet_augmented", "rmsprop", "tutorial")  # recipes that the PyTorch peer has, too


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    parser.add_argument("--ours_only", action="store_true", help="neither plain Flax nor PyTorch")
    machine.add_peer(parser)
    arguments = machine.parse(parser, steps=60)
    names = machine.choose(parser, arguments.only, RECIPES)
    results: dict[str, Any] = {"conditions": machine.conditions()}
    results |= {"rounds": arguments.rounds, "steps": arguments.steps, "recipes": {}}
    machine.print_conditions(results["conditions"])
    try:
        for name in names:
            results["recipes"][name] = _measure(name, arguments)
            _show(name, results["recipes"][name])
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    results["peak_mib"] = machine.peak_memory()
    print(f"\nPeak memory of this process: {results['peak_mib']:,} MiB")
    machine.write(results, arguments.output)
    return 0


def _measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    recipe = make_recipe(*load_recipe(name, arguments.data_dir))
    train, batch_size = recipe.dataset.train, recipe.config.batch_size
    peer: dict[str, Any] = {}

    def torch_step(steps: int) -> float:
        command = [arguments.torch_python, arguments.torch_peer, "throughput", f"--arch={name}"]
        command += [f"--batch={batch_size}", f"--steps={steps}"]
        peer.update(machine.parse_peer(machine.call(command), ("peer", "ms_per_step")))
        return peer["ms_per_step"] / 1000

    steps = {"ours": our_step(recipe)}
    if not arguments.ours_only:
        steps["plain"] = plain_step(recipe)
        if arguments.torch_peer and name in PEER_ARCHS:
            steps["torch"] = torch_step
    measures = {kind: functools.partial(step, arguments.steps) for kind, step in steps.items()}
    taken = machine.interleave({**measures, "product": machine.matrix_product()}, arguments.rounds)
    images = jax.ShapeDtypeStruct((batch_size, *train.images.shape[1:]), "uint8")
    forward, step = count_flops(recipe.model, recipe.new_state(), images)
    return {
        "batch_size": batch_size,
        "data": f"{len(train.labels):,} images of {recipe.dataset.name}",
        "forward_flops": forward,
        "step_flops": step,
        "product_flops_per_second": taken.pop("product"),
        "seconds_per_step": taken,
        "torch": peer.get("peer"),
    }


def _show(name: str, measured: dict[str, Any]) -> None:
    batch, flops = measured["batch_size"], measured["step_flops"]
    times, rates = measured["seconds_per_step"], measured["product_flops_per_second"]
    floors = [flops / rate for rate in rates]
    facts = [f"\n{name}: batches of {batch} from {measured['data']}"]
    facts += [f"{flops / 1e9:.3g} GFLOP a step, floor {machine.spread(floors, '.2f', 1e3)} ms"]
    facts += [f"matrix product {machine.spread(rates, ',.0f', 1e-9)} GFLOP/s"]
    print("; ".join(facts + [measured["torch"]] * bool(measured["torch"])))
    rows = [
        (
            kind,
            machine.spread(taken, ".2f", 1e3),
            machine.spread([batch / seconds for seconds in taken], ",.0f"),
            machine.spread(machine.ratios(floors, taken), ".1%"),
            machine.spread(machine.ratios(taken, times["ours"])) if kind != "ours" else "",
        )
        for kind, taken in times.items()
    ]
    head = ("", "ms/step", "images/s", "share", "its time / ours")
    machine.print_table(head, rows)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A config, its data, and what training makes of them."""

    config: ConfigDict
    dataset: Dataset
    model: nn.Module
    optimizer: optax.GradientTransformation

    def new_state(self) -> TrainState:
        """Returns the state before the first step, in buffers of its own."""
        shape, seed = self.dataset.train.images.shape[1:], self.config.seed
        return init_state(self.model, self.optimizer, shape, seed)


def load_recipe(name: str, data_dir: str | None) -> tuple[ConfigDict, Dataset]:
    """Returns the config of configs/<name>.py and its data; the sample will do for a clock."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.data_dir = data_dir
    return config, data.load(config.data)


def make_recipe(config: ConfigDict, dataset: Dataset) -> Recipe:
    """Builds the model and the optimizer as training does."""
    times = Timetable.from_config(config, programs.num_train_examples(config, dataset))
    rate = create_schedule(config.schedule, config.optimizer.learning_rate, times.total_steps)
    optimizer = create_optimizer(config.optimizer, rate, config.clip_by_global_norm)
    return Recipe(config, dataset, create_model(config.model, len(dataset.class_names)), optimizer)


def our_step(recipe: Recipe) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step of the compiled chunk, as training runs it."""
    config, model, dataset, state = recipe.config, recipe.model, recipe.dataset, recipe.new_state()
    slow = slow_layers(model, state, dataset.train.images.shape[1:])
    compiled = compile_programs(
        config, model, recipe.optimizer, state, dataset, in_python=bool(slow)
    )
    order = compiled.epoch_order(0)
    return machine.stopwatch(
        lambda state, count: compiled.train_chunk(state, order, jnp.int32(count)), state
    )


def plain_step(recipe: Recipe) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step of plain Flax, called from a Python loop."""
    step, arrays = jax.jit(make_plain_step(recipe), donate_argnums=0), device_data(recipe)

    def advance(state: TrainState, count: int) -> TrainState:
        for _ in range(count):
            state, _loss = step(state, *arrays)
        return state

    return machine.stopwatch(advance, recipe.new_state())


def device_data(recipe: Recipe) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the images, their labels and the order of the first epoch."""
    config, train = recipe.config, recipe.dataset.train
    num_examples = programs.num_train_examples(config, recipe.dataset)
    order = jax.jit(programs.make_epoch_order(config, num_examples))(jnp.int32(0))
    return *jax.device_put((train.images, train.labels)), order


def make_plain_step(recipe: Recipe) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns step(state, images, labels, order) -> state, loss: Flax as its guides have it."""
    model, optimizer, seed = recipe.model, recipe.optimizer, recipe.config.seed
    draw_batch = programs.make_draw_batch(recipe.config)

    def step(
        state: TrainState, images: jax.Array, labels: jax.Array, order: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        batch = draw_batch(images, labels, order, state.step)
        key = rng_key(seed, "dropout", state.step)

        def loss_fn(params: PyTree) -> tuple[jax.Array, PyTree]:
            logits, stats = apply_train(model, params, state.batch_stats, batch.images, key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
            return losses.mean(), stats

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(
            step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state
        ), loss

    return step


def count_flops(
    model: nn.Module, state: TrainState, images: jax.ShapeDtypeStruct
) -> tuple[int, int]:
    """Returns the FLOPs of the products in a forward pass and in a whole training step."""
    forward = functools.partial(apply_train, model)
    key = rng_key(0, "dropout", 0)
    traced = jax.make_jaxpr(forward)(state.params, state.batch_stats, images, key)
    products = list(_products(traced.jaxpr))
    # The first product reads the images, which need no gradient.
    return sum(products), 3 * sum(products) - sum(products[:1])


def _products(jaxpr: Jaxpr) -> Iterator[int]:
    """The FLOPs of each convolution and matrix product, in the program's order."""
    for eqn in jaxpr.eqns:
        shapes = [cast(Any, atom.aval).shape for atom in (*eqn.invars, *eqn.outvars)]
        if eqn.primitive.name == "conv_general_dilated":
            _, kernel, result = shapes
            outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            yield 2 * math.prod(result) * math.prod(kernel) // outputs
        elif eqn.primitive.name == "dot_general":
            first, _, result = shapes
            (summed, _), _ = eqn.params["dimension_numbers"]
            yield 2 * math.prod(result) * math.prod(first[axis] for axis in summed)
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for body in jaxprs_in_params(eqn.params):
            yield from (flops * times for flops in _products(body))


if __name__ == "__main__":
    sys.exit(main())
