"""A small network that learns from a larger one, or from an ensemble, besides the labels.

    python launch.py --config=configs/distilled.py --config.task.teacher=runs/ensemble

fast995's network with a single view of each image (33,658 parameters), for as many steps. Nine
tenths of what it learns are the teacher's probabilities at temperature 4, of the same shifted
images (Hinton, Vinyals and Dean, arXiv 1503.02531); the rest are the labels. The teacher is any
finished classification. It is carried in the run, so each save is larger by its bytes, and each
step takes as much longer as the teacher takes to look at a batch.
"""

from ml_collections import ConfigDict

from mnist_flax.config import default_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = default_config()
    config.task = ConfigDict(
        {
            "name": "distillation",
            "teacher": "",
            "checkpoint": "latest",
            "temperature": 4.0,
            "teacher_weight": 0.9,
        }
    )
    config.model = ConfigDict(
        {"name": "compact", "features": (16, 32, 64), "strided_stem": False, "dropout_rate": 0.0}
    )
    config.augment.order = ("random_shift",)
    config.augment.random_shift.max_pixels = 1
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 0.02, "weight_decay": 1e-4})
    config.schedule = ConfigDict({"name": "cosine_onecycle_schedule", "pct_start": 0.3})
    config.batch_size = 128
    config.num_steps = 3300
    config.log_every_steps = 300
    config.eval_every_steps = 3300  # once, at the end
    config.checkpoint_every_steps = 3300
    return config
