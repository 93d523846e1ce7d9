"""Flags into calls. launch.py at the top of the repository is a door to it.

main.py    main(): reads the command line, does what --mode says, returns the exit status; --help
flags.py   every flag, and which mode takes which
recipe.py  --config, executed once, and its overrides
modes.py   what each mode calls; train.py, check.py, predict.py and sweep.py: those with a file
sweep.py   many runs of one recipe: sweep_plan.py says which, sweep_processes.py runs them
restored.py  the run that a command asks, and its data
hints.py   what is said beside the results, and the commands that come next
"""
