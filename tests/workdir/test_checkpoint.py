"""Saves: to the bit, the right ones kept, every damage found and named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from made import sums

from mnist_flax.core.state import PyTree, TrainState
from mnist_flax.errors import UsageError, UserError
from mnist_flax.workdir.checkpoints import Checkpoints
from mnist_flax.workdir.digests import describe

Open = Callable[..., Checkpoints]


def make_state(step: int, width: int = 64, optimizer: str = "adam") -> TrainState:
    # Random, so that no compression finds anything and a file of its own holds the numbers.
    kernel = np.random.default_rng(step).standard_normal((64, width)).astype(np.float32)
    params = {"dense": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(width)}}
    return TrainState(
        step=jnp.int32(step),
        variables={"params": params, "batch_stats": {}},
        opt_state=getattr(optax, optimizer)(0.1).init(params),
        window=sums(0.1, 3, 4),
        epoch=sums(0.7, 5, 6),
    )


def metadata(accuracy: float | None = None) -> dict[str, Any]:
    evaluation = None if accuracy is None else {"accuracy": accuracy}
    return {"step": 0, "evaluation": evaluation, "rate": 0.1 + 0.2, "config": {"num_epochs": None}}


def save(checkpoints: Checkpoints, *steps: int, best: bool = False, accuracy: float = 0.5) -> None:
    for step in steps:
        checkpoints.save(make_state(step), metadata(accuracy), best=best)


def best_accuracy(checkpoints: Checkpoints) -> float:
    evaluation = checkpoints.best_evaluation()
    assert evaluation is not None
    return evaluation["accuracy"]


def assert_same_bits(one: PyTree, other: PyTree) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    """Opens tmp_path/checkpoints, each time anew."""
    opened: list[Checkpoints] = []

    def reopen(**kwargs: Any) -> Checkpoints:
        while opened:
            opened.pop().close()
        opened.append(Checkpoints(tmp_path / "checkpoints", **kwargs))
        return opened[-1]

    yield reopen
    for checkpoints in opened:
        checkpoints.close()


@pytest.mark.parametrize("best", [False, True])
def test_a_state_comes_back_to_the_bit(reopen: Open, best: bool) -> None:
    save(reopen(), 7, best=best)
    restored = reopen().restore(7, jax.eval_shape(lambda: make_state(0)))
    assert_same_bits(restored, make_state(7))
    assert type(restored.opt_state[0]) is optax.ScaleByAdamState
    assert restored.batch_stats == {}


@pytest.mark.parametrize(
    "values",
    [
        jnp.array([0.0, -0.0, np.nan, -np.nan, np.inf, 1e-45], jnp.float32),
        jnp.array([1.0, 1 / 3, -0.0], jnp.bfloat16),
        jnp.array([1 / 3], jnp.float16),
        jnp.array([2**32 - 1], jnp.uint32),
        jnp.array([True, False]),
        jnp.array(255, jnp.uint8),
    ],
    ids=lambda values: values.dtype.name,
)
def test_every_number_and_type_comes_back(reopen: Open, values: jax.Array) -> None:
    state = make_state(1)
    stats = {"norm": {"mean": values}}
    state = state.replace(variables={"params": state.params, "batch_stats": stats})
    checkpoints = reopen()
    checkpoints.save(state, metadata(), best=False)
    assert_same_bits(checkpoints.restore(1, state), state)


def test_metadata_come_back(reopen: Open) -> None:
    given = metadata(0.9757)
    reopen().save(make_state(3), given, best=False)
    got = reopen().metadata(3)
    assert {name: got[name] for name in given} == given
    assert got["leaves"]["variables.params.dense.kernel"] == "float32[64, 64]"


def test_describe() -> None:
    leaves = describe({"a": [jnp.zeros((2, 3)), jnp.int32(0)], "b": jnp.zeros(1, jnp.bfloat16)})
    assert leaves == {"a.0": "float32[2, 3]", "a.1": "int32[]", "b": "bfloat16[1]"}


def test_the_newest_are_kept(reopen: Open) -> None:
    checkpoints = reopen(keep=2)
    save(checkpoints, 1, 2, 3, 10)
    assert checkpoints.steps() == reopen(keep=2).steps() == [3, 10]


def test_the_best_stays_beside_the_newest_until_a_better_one(reopen: Open) -> None:
    checkpoints = reopen(keep=1)
    assert checkpoints.best_evaluation() is None
    save(checkpoints, 2, best=True, accuracy=0.6)
    save(checkpoints, 3, 4)
    assert checkpoints.steps() == [2, 4]
    checkpoints = reopen(keep=1)
    assert (checkpoints.find("best"), best_accuracy(checkpoints)) == (2, 0.6)
    save(checkpoints, 5, best=True, accuracy=0.7)
    assert (checkpoints.steps(), checkpoints.find("best")) == ([4, 5], 5)
    assert best_accuracy(checkpoints) == best_accuracy(reopen(keep=1)) == 0.7


def test_a_step_may_be_saved_and_then_turn_out_the_best(reopen: Open) -> None:
    checkpoints = reopen()
    checkpoints.save(make_state(5), metadata(None), best=False)
    checkpoints.save(make_state(5), metadata(0.8), best=True)
    assert (checkpoints.steps(), best_accuracy(checkpoints)) == ([5], 0.8)
    assert checkpoints.path(5).parent.name == "best"


def test_the_newest_save_is_copied_to_the_best(tmp_path: Path, reopen: Open) -> None:
    checkpoints = reopen()
    save(checkpoints, 4, best=True, accuracy=0.6)
    save(checkpoints, 8, accuracy=0.7)
    checkpoints.copy_to_best(8, make_state(8))
    for opened in (checkpoints, reopen()):
        assert (opened.steps(), opened.find("best"), best_accuracy(opened)) == ([8], 8, 0.7)
    assert_same_bits(opened.restore(8, make_state(0)), make_state(8))
    assert opened.path(8).parent.name == "best"
    assert [path.name for path in (tmp_path / "checkpoints/best").iterdir()] == ["8"]


def test_a_copy_that_was_cut_short_is_cleared_away(tmp_path: Path, reopen: Open) -> None:
    checkpoints, best = reopen(), tmp_path / "checkpoints" / "best"
    save(checkpoints, 4, best=True, accuracy=0.6)
    save(checkpoints, 8, accuracy=0.7)
    lost = tmp_path / "checkpoints/latest/8/_CHECKPOINT_METADATA"
    lost.unlink()
    lost.symlink_to("nowhere")
    reason = r"best/8: .*\(\[Errno 2\] No such file or directory\)"
    with pytest.raises(UserError, match=reason):
        checkpoints.copy_to_best(8, make_state(8))
    assert sorted(path.name for path in best.iterdir()) == ["4", "8.orbax-checkpoint-tmp"]
    assert (reopen().find("best"), best_accuracy(reopen())) == (4, 0.6)
    assert [path.name for path in best.iterdir()] == ["4"]


@pytest.mark.parametrize(("which", "step"), [("latest", 9), ("best", 4), ("7", 7), ("4", 4)])
def test_find(reopen: Open, which: str, step: int) -> None:
    checkpoints = reopen(keep=2)
    save(checkpoints, 4, best=True)
    save(checkpoints, 7, 9)
    assert checkpoints.find(which) == step


def test_the_best_may_be_the_latest(reopen: Open) -> None:
    checkpoints = reopen()
    save(checkpoints, 4)
    save(checkpoints, 6, best=True)
    assert checkpoints.find("latest") == 6


@pytest.mark.parametrize("which", ["nonsense", "best", "5", "-4", "4.0", ""])
def test_what_is_told_where_there_is_no_such_save(tmp_path: Path, reopen: Open, which: str) -> None:
    checkpoints = reopen(keep=2)
    save(checkpoints, 4, 7)
    with pytest.raises(UsageError) as error:
        checkpoints.find(which)
    assert str(error.value) == (
        f"checkpoint={which}: no such checkpoint in {tmp_path / 'checkpoints'}. "
        "Saved steps: 4, 7. Allowed: latest, best, or one of these steps."
    )


def test_what_is_told_where_nothing_is_saved(tmp_path: Path, reopen: Open) -> None:
    with pytest.raises(UsageError, match="Saved steps: none; train first"):
        reopen(read_only=True).find("latest")
    assert list(tmp_path.iterdir()) == []


def test_read_only_changes_nothing(tmp_path: Path, reopen: Open) -> None:
    save(reopen(keep=3), 1, 2, 3)
    unfinished = tmp_path / "checkpoints" / "latest" / "4.orbax-checkpoint-tmp-0"
    unfinished.mkdir()
    (unfinished / "half").write_text("being written")
    before = files(tmp_path)
    checkpoints = reopen(read_only=True)
    assert checkpoints.steps() == [1, 2, 3]
    assert_same_bits(checkpoints.restore(2, make_state(0)), make_state(2))
    checkpoints.close()
    assert files(tmp_path) == before


def test_a_save_that_was_replaced_meanwhile_is_not_called_damaged(
    tmp_path: Path, reopen: Open
) -> None:
    writer = reopen(keep=1)
    save(writer, 3)
    reader = reopen(read_only=True)
    assert reader.find("latest") == 3
    save(writer, 5)
    with pytest.raises(UserError, match=r"latest/3 is gone: .* Try again"):
        reader.restore(3, make_state(3))


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints(Path("run/checkpoints"))
    save(checkpoints, 1)
    checkpoints.close()
    assert (tmp_path / "run" / "checkpoints" / "latest" / "1").is_dir()


@pytest.mark.parametrize(
    ("like", "lines"),
    [
        (
            {"width": 32},
            [
                "  opt_state.0.mu.dense.bias: saved float32[64], now float32[32]",
                "  variables.params.dense.kernel: saved float32[64, 64], now float32[64, 32]",
            ],
        ),
        (
            {"optimizer": "sgd"},
            [
                "  opt_state.0.count: saved int32[], now nothing",
                "  opt_state.0.nu.dense.bias: saved float32[64], now nothing",
            ],
        ),
    ],
)
def test_another_model_is_told_field_by_field(
    tmp_path: Path, reopen: Open, like: dict[str, Any], lines: list[str]
) -> None:
    checkpoints = reopen()
    save(checkpoints, 7)
    with pytest.raises(UserError) as error:
        checkpoints.restore(7, make_state(7, **like))
    told = str(error.value).splitlines()
    path = tmp_path / "checkpoints" / "latest" / "7"
    assert told[0] == f"{path} belongs to another model or optimizer:"
    assert set(lines) <= set(told)
    assert not any(line.startswith("  step") for line in told)


def harm_empty(path: Path) -> None:
    path.write_bytes(b"")


def harm_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def harm_gone(path: Path) -> None:
    path.unlink()


def harm_first_bit(path: Path) -> None:
    flip(path, 0)


def harm_middle_bit(path: Path) -> None:
    flip(path, path.stat().st_size // 2)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


HARMS = [harm_empty, harm_half, harm_gone, harm_first_bit, harm_middle_bit]


# Where a read fails, others of the same save are under way and find their event loop closed.
@pytest.mark.parametrize("harm", HARMS)
def test_damage_to_any_file_is_found_or_does_no_harm(
    tmp_path: Path, reopen: Open, harm: Callable[[Path], None]
) -> None:
    save(reopen(keep=2), 3, 7)
    folder = tmp_path / "checkpoints" / "latest" / "7"
    intact = files(folder)
    found = set()
    for path, content in intact.items():
        harm(path)
        harmed = files(tmp_path)
        checkpoints = reopen(keep=2)
        assert checkpoints.steps() == [3, 7]
        try:
            assert_same_bits(checkpoints.restore(7, make_state(0)), make_state(7))
        except UserError as error:
            found.add(path.relative_to(folder).parts[:2])
            told = str(error)
            assert told.startswith(f"{folder}: this checkpoint is damaged (")
            assert told.endswith("To go on from step 3: config.on_damaged_checkpoint=previous")
            assert "\n" not in told
        assert files(tmp_path) == harmed
        path.write_bytes(content)
    assert found >= {("metadata", "metadata"), ("state", "_METADATA"), ("state", "d")}


def test_a_changed_number_that_orbax_believes_is_found(tmp_path: Path, reopen: Open) -> None:
    save(reopen(), 7)
    for path in files(tmp_path):
        if path.parent.name == "d" and path.stat().st_size > 3 * 64 * 64:  # the numbers themselves
            flip(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="its arrays are not those that were written"):
        reopen().restore(7, make_state(0))


def test_changed_metadata_that_are_still_json_are_found(tmp_path: Path, reopen: Open) -> None:
    save(reopen(), 7, best=True, accuracy=0.5)
    path = tmp_path / "checkpoints" / "best" / "7" / "metadata" / "metadata"
    text = path.read_text()
    assert '"accuracy": 0.5' in text
    path.write_text(text.replace('"accuracy": 0.5', '"accuracy": 0.9'))
    with pytest.raises(UserError, match=r"best/7: .*its metadata are not .* Start afresh"):
        reopen().best_evaluation()


def test_a_save_that_fails_says_where_and_what_is_left(tmp_path: Path, reopen: Open) -> None:
    checkpoints = reopen()
    save(checkpoints, 3)
    folder = tmp_path / "checkpoints" / "best"
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(UserError) as error:
        save(checkpoints, 7, best=True)
    told = str(error.value)
    assert told.startswith(f"{folder}/7: the checkpoint could not be written (")
    assert told.endswith("saved so far: [3].")
    folder.unlink()
    assert_same_bits(reopen().restore(3, make_state(0)), make_state(3))
