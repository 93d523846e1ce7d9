"""A run: config in, trained state out.

run.py          train(): gather, open, compile, loop
gather.py       what the config names: data, sources, task, timetable
own_data.py     where the data of a run that goes on are
opening.py      the workdir is opened; resume.py decides whether the run goes on from its saves
lost_saves.py   whether the saves of a run are gone
compilation.py  a run's programs
loop.py         what happens between the first step and the last, on one page
interrupts.py   Ctrl-C, where it is called from Python
timetable.py    when a run logs, evaluates and saves
standing.py     where it stands
finetune.py     a start from another run's parameters
outlook.py      what a start would find in a workdir; trial.py: a few steps and batches, timed
profile.py      a window of steps, traced
"""

from mnist_flax.training.gather import check
from mnist_flax.training.run import train

__all__ = ["check", "train"]
