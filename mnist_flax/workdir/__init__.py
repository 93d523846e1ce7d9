"""What lies on disk and survives: the folder of a run.

    config.json      files.py: every resolved field, the data, the versions of the stack
    metrics.jsonl    rows.py: a JSON object a line
    trained_on.npy   trained_on.py: digests of the images that it is trained on
    checkpoints/     checkpoints.py: the newest saves, the best one; digests.py notices damage
    .lock, .holder   lock.py: one process at a time
    tensorboard/     show/tensorboard.py
    report/          report/
    export/          export/

environment.py knows what a run's bits depend on besides its config and data.
"""
