"""Flags into calls, for launch.py, `mnist-flax` and `python -m mnist_flax`.

main.py    main(): reads the command line, does what --mode says, returns the exit status; --help
flags.py   every flag, and which mode takes which
recipe.py  --config, executed once, and its overrides; recipe_files.py finds its file
modes.py   what each mode calls; train.py, check.py, predict.py and sweep.py: those with a file
sweep.py   many runs of one recipe: sweep_plan.py says which, sweep_processes.py runs them
restored.py  the run that a command asks, and its data
start.py   what comes before all of it; program.py: by which name it was started
hints.py   what is said next to the results, and the commands that come next
"""
