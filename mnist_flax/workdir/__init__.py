"""What lies on disk and survives: the folder of a run.

    config.json      files.py: every resolved field, the data, the versions of the stack
    metrics.jsonl    rows.py: a JSON object a line; columns.py: the same as columns
    trained_on.npy   known_images.py: digests of the images that it is trained on
    pictures/        kept_pictures.py: what a task has drawn, by name and step
    chosen_on.npy    and of those that choose its best save
    checkpoints/     checkpoints.py: the newest saves, the best one, which one goes
                     saves.py: one save written and read; digests.py notices damage
                     metadata.py: what a save says apart from its arrays
                     plain_path.py has Orbax take any name for a name
    .lock, .holder   lock.py: one process at a time
    tensorboard/     show/tensorboard.py
    wandb/           show/wandb_view.py
    report/          report/
    export/          export/

environment.py knows what a run's bits depend on besides its config and data, old_runs.py what 0.1.0
wrote otherwise, save_faults.py how Orbax's words for a failed save become one line.
"""
