"""Several trained networks as one: the mean of their probabilities. Nothing is trained.

    python launch.py --config=configs/ensemble.py --config.task.members="('runs/a', 'runs/b')"
    python launch.py --config=configs/ensemble.py --config.task.members="('runs/sweep/seed=*',)"

The members are finished classifications of the same data; their networks need not be alike. Of
each its latest save is taken, or with --config.task.checkpoint=best its best one. The result lies
in runs/ensemble, a run of no steps, which is evaluated, reported, exported and served as any other;
it needs the members' folders no longer. Where nothing is said of the data, they are the members'.
"""

from ml_collections import ConfigDict

from mnist_flax.config import default_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = default_config()
    config.task = ConfigDict({"name": "ensemble", "members": (), "checkpoint": "latest"})
    config.model = ConfigDict({"name": "ensemble"})
    config.num_steps = 0
    return config
