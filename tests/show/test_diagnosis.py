import numpy as np
import pytest
from conftest import events
from ml_collections import ConfigDict

from mnist_flax.show.diagnosis import flat_loss, is_judged, lost_classes
from mnist_flax.training import train


def test_the_loss_of_guessing_is_flat():
    told = flat_loss(2.302585, 2.302585, 10)
    assert "guessing, 2.3026: 2.3026 over the first epoch, 2.3026 in its last batch." in told
    assert flat_loss(5.0, 2.28, 10)  # 0.99 · ln 10 = 2.2796
    assert not flat_loss(5.0, 2.27, 10)  # it began high and has fallen
    assert not flat_loss(2.27, 5.0, 10)
    assert not flat_loss(2.28, 2.28, 20)


@pytest.mark.parametrize(
    ("steps_per_epoch", "epoch"), [(1, 100), (3, 34), (17, 6), (99, 2), (100, 1), (600, 1)]
)
def test_a_loss_is_judged_once_and_not_before_a_hundred_steps(steps_per_epoch, epoch):
    judged = [number for number in range(1, 200) if is_judged(number, steps_per_epoch)]
    assert judged == [epoch]


def test_a_flat_loss_is_pointed_out_at_the_first_epochs_end_after_a_hundred_steps(
    tiny_config, tmp_path
):
    tiny_config.model = ConfigDict({"name": "tiny:DeadNet"})
    tiny_config.num_steps = 120
    train(tiny_config, tmp_path)
    (flat,) = events(tmp_path, "flat_loss")
    assert flat["step"] == 102  # six epochs of 17; the seventh says no more
    assert " over epoch 6, " in flat["message"]


def test_lost_classes_are_named_and_counted():
    labels = np.array([0, 1, 2, 2, 1, 0])
    assert lost_classes(np.array([0, 1, 2, 0, 0, 0]), labels, "abc") == ""
    told = lost_classes(np.array([1, 1, 1, 1, 1, 1]), labels, "abc")
    assert told == "Classes never predicted: a, c. 4 of 6 images belong to them."
    assert lost_classes(np.array([1] * 6), labels, "abc", relu_logits=True).endswith(
        "config.model.relu_logits=false, in a new workdir, mends it."
    )
    # A class that no image has is not lost.
    assert lost_classes(np.array([0, 0]), np.array([0, 0]), "abc") == ""


def test_of_a_thousand_lost_classes_ten_are_named():
    names = [f"class-{number:04}" for number in range(1000)]
    told = lost_classes(np.zeros(1000, np.int32), np.arange(1000), names)
    assert told.startswith("Classes never predicted: class-0001, class-0002, ")
    assert ", class-0010 and 989 more. 999 of 1,000 images belong to them." in told


def test_one_class_alone_cannot_be_guessed_worse():
    assert flat_loss(0.0, 0.0, 1) == ""


def test_short_epochs_are_in_the_rows_and_not_on_the_console(tiny_config, tmp_path, capsys):
    tiny_config.log_every_steps = 18  # an epoch has 17
    train(tiny_config, tmp_path)
    assert [row["epoch"] for row in events(tmp_path, "epoch")] == [1, 2]
    assert " epoch " not in capsys.readouterr().err


def test_of_dead_logits_the_lost_classes_are_named_after_the_first_epoch(tiny_config, tmp_path):
    tiny_config.model = ConfigDict({"name": "tiny:DeadNet"})
    train(tiny_config, tmp_path)
    assert events(tmp_path, "flat_loss") == []  # after 40 steps that is too early to say
    lost = events(tmp_path, "lost_classes")
    assert [row["step"] for row in lost] == [32, 40]  # not at 16, within the first epoch
    assert lost[-1]["message"].startswith("Classes never predicted: 1, 2, 3, 4, 5, 6, 7, 8, 9. ")


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_that_learns_is_told_nothing(tiny_config, tmp_path):
    tiny_config.optimizer.learning_rate, tiny_config.num_steps = 0.05, 170
    tiny_config.eval_every_steps = 170
    train(tiny_config, tmp_path)
    assert not events(tmp_path, "flat_loss", "lost_classes")
