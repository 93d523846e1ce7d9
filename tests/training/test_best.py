"""configs/best.py: what its variants do, and that each change of its sweep is one."""

from pathlib import Path

import pytest
from conftest import rows

from configs.best import get_config, get_sweep
from mnist_flax.config import flatten, overridden
from mnist_flax.training.gather import check


def test_each_point_of_the_sweep_trains_another_network() -> None:
    config = get_config("short")
    points = get_sweep("short")
    assert get_sweep("") == get_sweep("bfloat16") == [{}]
    assert points[0] == {}
    seen = []
    for point in points:
        changed, _ = overridden(config, point)
        check(changed)
        seen.append({field: str(value) for field, value in flatten(changed).items()})
    assert all(one != other for place, one in enumerate(seen) for other in seen[:place])


def test_the_sweep_is_judged_on_digits_held_out() -> None:
    config = get_config("short")
    assert (config.data.train_split, config.data.eval_split) == ("train[:55000]", "train[55000:]")
    for variant in ("", "bfloat16", "quick"):
        assert get_config(variant).data.train_split == "train"
        assert get_config(variant).data.eval_split == "test"


@pytest.mark.slow
@pytest.mark.promise
def test_the_quick_variant_learns(launch, tmp_path: Path) -> None:
    workdir = tmp_path / "quick"
    done = launch("--config=best:quick", f"--workdir={workdir}", "--config.data.name=mnist_sample")
    assert done.returncode == 0, done.stderr
    assert rows(workdir)[-1]["accuracy"] > 0.95
