"""Trains the five tutorials on the full MNIST and writes docs/RESULTS.md with what came out.

    python benchmarks/reproduce.py --data_dir=FOLDER          all of it: hours on two cores
    python benchmarks/reproduce.py --only=adam,rmsprop        some of it
    python benchmarks/reproduce.py --quick                    300 steps of each, into runs/quick

The report is about all finished runs that lie under --runs. Where only a part was asked for, it is
written next to them and not into docs/, unless --report=docs says so.

Every run is launch.py's, as a user starts it, in a workdir of its own under --runs. Ctrl-C stops
and saves; the same command goes on where it stood, and a run that is finished is not run again.
The pictures need matplotlib: pip install -e '.[benchmarks]'.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from experiments import EXPERIMENTS, Experiment, is_finished

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Runs what is asked for, then writes the report about everything that there is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [*(experiment.name for experiment in EXPERIMENTS), "dead_logits"]
    parser.add_argument("--only", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", help="of them only these, such as 0,2")
    parser.add_argument("--data_dir", help="config.data.data_dir; by default what launch.py finds")
    parser.add_argument("--runs", type=Path, help="default: runs/reproduce, or runs/quick")
    parser.add_argument("--quick", action="store_true", help="300 steps of each")
    parser.add_argument("--report", type=Path, help="the report's folder")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    if unknown := set(only) - set(names):
        parser.error(f"--only={','.join(sorted(unknown))}: there are {', '.join(names)}")
    runs = arguments.runs or ROOT / "runs" / ("quick" if arguments.quick else "reproduce")
    whole = not arguments.quick and not arguments.seeds and set(only) == set(names)
    report = arguments.report or (ROOT / "docs" if whole else runs)

    for experiment in EXPERIMENTS:
        for seed in experiment.seeds:
            asked = arguments.seeds is None or str(seed) in arguments.seeds.split(",")
            if experiment.name not in only or not asked:
                continue
            status = _run(experiment, seed, runs, arguments.data_dir, arguments.quick)
            if status:
                return status
    if "dead_logits" in only and not arguments.quick:
        status = _count_dead_logits(runs / "dead_logits.json", arguments.data_dir)
        if status:
            return status
    from report import write_report

    return write_report(EXPERIMENTS, runs, report)


def _run(experiment: Experiment, seed: int, runs: Path, data_dir: str | None, quick: bool) -> int:
    """Starts, or goes on with, one run; returns its exit status."""
    workdir = runs / f"{experiment.name}-{seed}"
    print(f"\n=== {experiment.name}, seed {seed}: {workdir}", flush=True)
    if is_finished(workdir):
        print("is finished")
        return 0
    command = [sys.executable, str(ROOT / "launch.py")]
    command += [f"--config={ROOT / 'configs' / experiment.config}.py", f"--workdir={workdir}"]
    command += [f"--config.seed={seed}", "--config.data.fallback=none", *experiment.overrides]
    command += [f"--config.data.resplit={seed}"] if experiment.resplit else []
    command += [f"--config.data.data_dir={data_dir}"] if data_dir else []
    command += ["--config.num_steps=300"] if quick else []
    return _call(command)


def _call(command: list[str]) -> int:
    try:
        return subprocess.call(command, cwd=ROOT)
    except KeyboardInterrupt:  # the run got the signal, too, and has saved itself
        return 130


def _count_dead_logits(output: Path, data_dir: str | None) -> int:
    if output.exists():
        return 0
    command = [sys.executable, str(ROOT / "benchmarks/dead_logits.py"), f"--output={output}"]
    command += [f"--data_dir={data_dir}"] if data_dir else []
    return _call(command)


if __name__ == "__main__":
    sys.exit(main())
