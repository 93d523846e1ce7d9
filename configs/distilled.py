"""A small network that learns from a larger one, or from an ensemble, besides the labels.

    python launch.py --config=configs/distilled.py --config.task.teacher=runs/ensemble

best's network with three quarters of the channels and a single view of each image (171,730
parameters), for ten epochs of the same images, drawn anew each time. Nine tenths of its loss are
the distance from the teacher's probabilities at temperature 4 (Hinton, Vinyals and Dean, arXiv
1503.02531), the rest is that of the labels. The teacher is any finished classification. It is
carried in the run, so each save is larger by its bytes, and each step takes as much longer as the
teacher takes to look at a batch.
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
        {"name": "compact", "features": (24, 48, 96), "strided_stem": False, "dropout_rate": 0.0}
    )
    config.model.convolutions = (1, 2, 2)
    config.augment.order = ("elastic_distortion", "random_shift")
    config.augment.elastic_distortion = ConfigDict({"alpha": 12.0})
    config.augment.random_shift.max_pixels = 1
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 0.02, "weight_decay": 1e-4})
    config.schedule = ConfigDict({"name": "cosine_onecycle_schedule", "pct_start": 0.3})
    config.batch_size = 128
    config.num_steps = 4690
    config.log_every_steps = 100
    config.eval_every_steps = 4690  # once, at the end
    config.checkpoint_every_steps = 469
    return config
