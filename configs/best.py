"""The most accurate single network: a wider fast995 with more layers, and digits drawn anew.

    python launch.py --config=configs/best.py
    python launch.py --config=configs/best.py:bfloat16    where the processor has units for it
    python launch.py --config=configs/best.py:quick       100 steps, for a look
    python launch.py --config=configs/best.py:short --mode=sweep --seeds=0,1

Five 3×3 convolutions (298,090 parameters): 28×28×1 → 32, pooled → 64, 64, pooled → 128, 128, pooled
→ 2,048 → 10, batch-norm and ReLU after each. Each time an image is seen it is drawn anew: an
elastic distortion of a third of the usual strength (Simard, Steinkraus and Platt, 2003), then a
shift by up to a pixel. 20 epochs with one cycle of the learning rate; an answer is the mean of five
views.

Everything was chosen on the 5,000 digits `train[55000:]`. The last command holds them out, too, and
trains each change of the recipe for three epochs: what earns its place? docs/ACCURACY.md has what
was tried, and what the 10,000 test digits said in the end.
"""

from typing import Any

from ml_collections import ConfigDict

from mnist_flax.config import default_config
from mnist_flax.errors import UsageError

_STEPS = {"": 9380, "bfloat16": 9380, "quick": 100, "short": 1290}  # 20 epochs; 3 of 55,000


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is what follows the colon: '' or one of _STEPS."""
    config = default_config()
    if variant not in _STEPS:
        raise UsageError(
            f"--config=best:{variant}: the variants are 'bfloat16', 'quick' and 'short'."
        )
    config.model = ConfigDict(
        {"name": "compact", "features": (32, 64, 128), "strided_stem": False, "dropout_rate": 0.0}
    )
    config.model.convolutions = (1, 2, 2)
    config.model.shifted_views = True
    config.augment.order = ("elastic_distortion", "random_shift")
    config.augment.elastic_distortion = ConfigDict({"alpha": 12.0})
    config.augment.random_shift.max_pixels = 1
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 0.02, "weight_decay": 1e-4})
    config.schedule = ConfigDict({"name": "cosine_onecycle_schedule", "pct_start": 0.3})
    config.label_smoothing = 0.05
    config.batch_size = 128
    config.num_steps = _STEPS[variant]
    config.log_every_steps = 100
    config.eval_every_steps = config.num_steps  # once, at the end
    config.checkpoint_every_steps = min(config.num_steps, 938)
    if variant == "bfloat16":
        config.compute_dtype = "bfloat16"
    if variant == "short":
        config.data.train_split, config.data.eval_split = "train[:55000]", "train[55000:]"
    return config


def get_sweep(variant: str) -> list[dict[str, Any]]:
    """Returns, for `short`, the recipe and each change of it; else the recipe alone."""
    if variant != "short":
        return [{}]
    shift = ("random_shift",)
    return [
        {},
        {"augment.order": ()},
        {"augment.order": shift},
        {"augment.order": ("random_rotation", *shift)},
        {"augment.order": ("random_rotation", "random_scaling", *shift)},
        {"augment.order": ("elastic_distortion",)},
        {"augment.order": ("random_rotation", "elastic_distortion", *shift)},
        {"augment.order": ("elastic_distortion", *shift, "random_erasing")},
        {"augment.elastic_distortion.alpha": 34.0},
        {"label_smoothing": 0.0},
        {"ema_decay": 0.998},
        {"schedule.name": "constant_schedule"},
        {"model.features": (16, 32, 64)},
        {"model.convolutions": (1, 1, 1)},
        {"model.dropout_rate": 0.3},
        {"model.shifted_views": False},
    ]
