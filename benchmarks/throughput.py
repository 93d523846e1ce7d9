"""Images per second of each recipe: as we train it, in plain Flax, and in PyTorch.

    python benchmarks/throughput.py --data_dir=FOLDER                       all recipes: minutes
    python benchmarks/throughput.py --only=tutorial --quick                 a look, in seconds
    python benchmarks/throughput.py --torch_python=PYTHON --dtype=bfloat16 --output=FILE

`ours` is the compiled chunk of a run, fed as in a run. `plain` is the same model, optimizer and
batches without the rewriting of mnist_flax.cpu: a jitted step, called from a Python loop. `torch`
is peers/classification.py, or another --torch_peer, run by an interpreter that has PyTorch, as a
process of its own while this one waits: at first in all its ways (layouts, compiled and not), then
in the fastest of them. `PYTHON PEER throughput --recipe=lenet --dtype=float32 --steps=60 --way=all`
prints {"peer": "torch 2.13.0", "way": "channels_last", "ms_per_step": 61.2} as its last line. A
round takes each of them once, and the rate of a plain matrix product, in the same dtype. Figures
are medians over the rounds, with the lowest and the highest; ratios are taken within a round.

A step's FLOPs are counted from the jaxpr of the forward pass: two for each multiplication of a
convolution or matrix product, those with padding included. The backward pass has twice as many,
without the gradient of the images, which nobody asks for. `floor` is what these would take at the
rate of the matrix product, `share` the floor's part of the time taken.
"""

import argparse
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

from mnist_flax.core.optimizers import optimizer_of
from mnist_flax.core.state import PyTree, TrainState
from mnist_flax.core.task import Variables
from mnist_flax.cpu import half_precision
from mnist_flax.data.augment import normalize
from mnist_flax.data.batch import batch_like
from mnist_flax.data.sources import Feed, Source
from mnist_flax.errors import UserError
from mnist_flax.keys import rng_key
from mnist_flax.training.compilation import init_state, start_compiling
from mnist_flax.training.gather import Plan, gather

DRAWING = {"dcgan", "dcgan_fast", "vae"}  # whose peers are others
TAKING = {"ensemble", "distilled"}  # that start from other runs
RECIPES = sorted({path.stem for path in (machine.ROOT / "configs").glob("*.py")} - DRAWING - TAKING)


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--ours_only", action="store_true", help="neither plain Flax nor PyTorch")
    machine.add_peer(parser)
    arguments = machine.parse(parser, steps=60)
    names = machine.choose(parser, arguments.only, RECIPES)
    results: dict[str, Any] = {"conditions": machine.conditions()}
    results |= {"dtype": arguments.dtype, "rounds": arguments.rounds, "steps": arguments.steps}
    results["recipes"] = {}
    machine.print_conditions(results["conditions"])
    if said := half_precision.told(arguments.dtype):
        print(said)
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
    plan = load_plan(name, arguments.data_dir, arguments.dtype)
    dataset, batch_size = plan.dataset, plan.config.batch_size
    peer: dict[str, Any] = {"way": "all"}

    def torch_step(steps: int) -> float:
        program = arguments.torch_peer or str(machine.PEER)
        command = [arguments.torch_python, program, "throughput", f"--recipe={name}"]
        command += [f"--dtype={arguments.dtype}", f"--steps={steps}", f"--way={peer['way']}"]
        fields = ("peer", "way", "ms_per_step")
        peer.update(machine.parse_peer(machine.call(command), fields))
        return peer["ms_per_step"] / 1000

    steps = {"ours": our_step(plan)}
    if not arguments.ours_only:
        steps["plain"] = plain_step(plan)
        if arguments.torch_python:
            torch_step(arguments.steps)  # which way is the fastest
            steps["torch"] = torch_step
    measures = {kind: functools.partial(step, arguments.steps) for kind, step in steps.items()}
    product = machine.matrix_product(arguments.dtype)
    taken = machine.interleave({**measures, "product": product}, arguments.rounds)
    images = batch_like(batch_size, plan.spec.image_shape).images
    forward, step = count_flops(plan.task.model, plan.tried.form.variables, images)
    return {
        "batch_size": batch_size,
        "data": f"{len(dataset.train.labels):,} images of {dataset.name}",
        "forward_flops": forward,
        "step_flops": step,
        "product_flops_per_second": taken.pop("product"),
        "seconds_per_step": taken,
        "torch": f"{peer['peer']}, {peer['way']}" if "peer" in peer else None,
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


def load_plan(name: str, data_dir: str | None, dtype: str = "float32") -> Plan:
    """Returns what a run of configs/<name>.py would be; the sample will do for a clock."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.data_dir, config.compute_dtype = data_dir, dtype
    return gather(config, print)


def our_step(plan: Plan) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step of the compiled chunk, as training runs it."""
    state = init_state(plan)
    programs = start_compiling(plan, step=0)()

    def advance(state: TrainState, feed: Feed, count: int) -> TrainState:
        return programs.train_chunk(state, feed, jnp.int32(count))[0]

    return timed(plan.source, state, advance)


def plain_step(plan: Plan) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step of plain Flax, called from a Python loop."""
    step = jax.jit(make_plain_step(plan), donate_argnums=0)

    def advance(state: TrainState, feed: Feed, count: int) -> TrainState:
        for _ in range(count):
            state, _loss = step(state, feed)
        return state

    return timed(plan.source, init_state(plan), advance)


def timed(
    source: Source,
    state: TrainState,
    advance: Callable[[TrainState, Feed, int], TrainState],
    warm_up: int = 2,
) -> Callable[[int], float]:
    """Returns run(count) -> seconds per step, what feeds the steps included.

    Args:
      source: of the batches.
      state: where the first step starts; each run goes on from the last one's end.
      advance: (state, feed, count) -> the state `count` steps later; may donate the old one.
      warm_up: how many steps are taken before anything is timed.
    """

    def run(state: TrainState, count: int) -> TrainState:
        for feed, part in chunks(source, int(state.step), count):
            state = advance(state, feed, part)
        return state

    return machine.stopwatch(run, state, warm_up)


def chunks(source: Source, step: int, count: int) -> Iterator[tuple[Feed, int]]:
    """Cuts steps as a run does: a chunk lies in one epoch, and one feed serves it."""
    end = step + count
    while step < end:
        part = min(end - step, source.most_steps(step))
        yield source.feed(step, part), part
        step += part


def make_plain_step(plan: Plan) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns step(state, feed) -> state, loss: Flax as its guides have it."""
    model, draw, seed = plan.task.model, plan.source.draw, plan.config.seed
    optimizer, _ = optimizer_of(plan.config, plan.spec.num_steps)

    def step(state: TrainState, feed: Feed) -> tuple[TrainState, jax.Array]:
        batch = draw(feed, state.step)
        key = rng_key(seed, "dropout", state.step)

        def loss_fn(params: PyTree) -> tuple[jax.Array, Variables]:
            variables = {**state.variables, "params": params}
            logits, changed = apply_plain(model, variables, batch.images, key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
            return losses.mean(), changed

        (loss, changed), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        variables = {**state.variables, **changed, "params": params}
        return state.replace(step=state.step + 1, variables=variables, opt_state=opt_state), loss

    return step


def apply_plain(
    model: nn.Module, variables: Variables, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, Variables]:
    """The model in training, nothing rewritten: logits [B, K], and {'batch_stats': …} if any."""
    return model.apply(
        variables,
        normalize(images),
        train=True,
        rngs={"dropout": key},
        mutable=["batch_stats"],
    )


def count_flops(
    model: nn.Module, variables: Variables, images: jax.ShapeDtypeStruct
) -> tuple[int, int]:
    """Returns the FLOPs of the products in a forward pass and in a whole training step.

    Args:
      model: a linen module.
      variables: arrays, or their shapes.
      images: uint8 [B, H, W, C], likewise.
    """
    forward = functools.partial(apply_plain, model)
    traced = jax.make_jaxpr(forward)(variables, images, rng_key(0, "dropout", 0))
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
