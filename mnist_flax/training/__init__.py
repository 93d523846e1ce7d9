"""A run: config in, trained state out.

run.py          train(): what the config names is gathered, the workdir opened, all compiled
loop.py         what happens between the first step and the last, on one page
compilation.py  a run's programs
timetable.py    when a run logs, evaluates and saves
resume.py       whether it may go on from what its workdir holds
finetune.py     whether it starts from another run's parameters
signals.py      SIGTERM, SIGHUP and SIGINT
"""

from mnist_flax.training.gather import check
from mnist_flax.training.run import train

__all__ = ["check", "train"]
