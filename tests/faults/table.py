"""The faults: each an entry of FAULTS, by its name. SHORT are those of the ordinary test run."""

import functools
import os
import sys

import harms
import processes
from harms import HARMS, NEWEST, edit_rows, harm_file, in_namespace, no_namespaces, remove
from harness import Fault

from mnist_flax.workdir.rows import METRICS_FILE

PREVIOUS = ("--config.on_damaged_checkpoint=previous",)
# Of saves of this size the arrays lie in the largest file of d/, the others hold tables.
ARRAYS, TREE, META = "state/d/", "state/_METADATA", "metadata/metadata"

# Moments by their place in a run of 40 steps: rows at 1, 10, 20, 30, 40, evaluations at 16, 32 and
# 40, saves at each fourth step, of which the evaluated ones may be the best.
MOMENTS = {
    "the imports": "import:mnist_flax.training",
    "compilation": "compile#2",
    "the first step": "chunk#1",
    "the middle of a chunk": "chunk#6",
    "the middle of an evaluation": "evaluation#4",
    "the middle of a save": "os.rename:latest/20.orbax-checkpoint-tmp/state",
}
KILLED_ONLY = {
    "the middle of a save's arrays": "open:latest/20.orbax-checkpoint-tmp/metadata",
    "the last rename of a save": "os.rename:latest/20.orbax-checkpoint-tmp#3",
    "between a row and its save": "os.mkdir:latest/20.",
    "between the newest save and the best": "os.mkdir:best/16.",
    "the middle of the best save": "os.mkdir:best/16.orbax-checkpoint-tmp/",
    "the deletion of the best save before it": "shutil.rmtree:best/16",
    "the first file of an old save's deletion": "shutil.rmtree:latest/12",
    "the middle of an old save's deletion": "os.remove:manifest.ocdbt",
}
RESUMING = {
    "metrics.jsonl is cut": "os.rename:metrics.jsonl.tmp",
    "config.json is written": "open:config.json.tmp",
    "config.json is replaced": "os.rename:config.json.tmp",
}


def _killed() -> list[Fault]:
    moments = MOMENTS | KILLED_ONLY
    return [
        *(
            Fault(f"kill -9: {name}", during=f"kill@{moment}", status=-9)
            for name, moment in moments.items()
        ),
        *(
            Fault(f"kill -9 on resume: {name}", half=True, during=f"kill@{moment}", status=-9)
            for name, moment in RESUMING.items()
        ),
        Fault(
            "kill -9: the middle of the report",
            more=("--report",),
            during="kill@open:report/index",
            status=-9,
            then=("--report",),
            resumes="is finished",
            left=("report/index.html",),
        ),
    ]


def _signalled() -> list[Fault]:
    told = "saving and leaving.*(Stopped at step|Finished at step)(.|\n)*Go on with"
    return [
        *(
            Fault(
                f"{name}: {moment}", during=f"{action}@{place}", status=status, says=f"(?s){told}"
            )
            for name, action, status in (("SIGTERM", "term", 143), ("SIGINT", "int", 130))
            for moment, place in MOMENTS.items()
        ),
        *(
            Fault(
                f"{name} twice, the second in the save",
                during=f"{action}@chunk#6 {action}@os.rename:.orbax-checkpoint-tmp/state#3",
                status=status,
                says="saving and leaving",
            )
            for name, action, status in (("SIGTERM", "term", 143), ("SIGINT", "int", 130))
        ),
    ]


def _disk() -> list[Fault]:
    row = f"open:{METRICS_FILE}#7"
    full = functools.partial(Fault, status=1, resumes="Resumed at step|Started in")
    return [
        full("disk full: in a checkpoint", during="full@os.mkdir:latest/20.", says="latest/20"),
        full("disk full: in the best one", during="full@os.mkdir:best/16.", says="best/16"),
        full("disk full: before a row", during=f"full@{row}", says=METRICS_FILE),
        full("disk full: in the middle of a row", during=f"short@{row}", says=METRICS_FILE),
        full("disk full: in config.json", during="full@open:config.json.tmp", says="config.json"),
        full("disk full: as metrics.jsonl is cut", half=True, during="full@open:metrics.jsonl.tmp",
             says=METRICS_FILE),
        full("disk full: in .holder", during="full@open:.holder.tmp",
             says="holder|cannot be written"),
        full("disk full: in the report", more=("--report",), during="full@open:report/predictions",
             says="report/predictions.npz: cannot be written", then=("--report",),
             resumes="is finished", left=("report/index.html",)),
        full("disk full: a small disk, indeed full", half=True, obstacle=no_namespaces,
             prefix=in_namespace(harms.SMALL_DISK), says="No space left|disk is full"),
        full("the workdir is read-only", half=True, obstacle=no_namespaces, untouched=True,
             prefix=in_namespace(harms.READ_ONLY), says="cannot be written.*Read-only"),
    ]  # fmt: skip


def _damaged() -> list[Fault]:
    refused = functools.partial(Fault, half=True, status=1, untouched=True, says="is damaged")
    goes_on = functools.partial(
        refused,
        then=PREVIOUS,
        resumes=r"latest/24 is damaged: moved to .*(\n.*)*Resumed at step 20 ",
        left=("checkpoints/damaged/latest-24",),
    )
    parts = {"arrays": ARRAYS, "tree": TREE, "metadata": META}
    return [
        *(
            goes_on(f"newest save: its {name} {harm}", harm=harm_file(act, part))
            for harm, act in HARMS.items()
            for name, part in parts.items()
        ),
        goes_on("newest save: half its folders missing", harm=remove(f"{NEWEST}/state")),
        goes_on("newest save: a folder without content",
                harm=lambda workdir: [remove(NEWEST)(workdir), (workdir / NEWEST).mkdir()]),
        refused("best save: a flipped bit in its metadata", then=PREVIOUS,
                harm=harm_file(harms.flip, META, "checkpoints/best/16"),
                resumes=r"best/16 is damaged: moved to .*(\n.*)*Resumed at step 24 ",
                left=("checkpoints/damaged/best-16",)),
        refused("all saves damaged, and to go on with the previous", more=PREVIOUS,
                says="are damaged",
                harm=harm_file(harms.flip, META, "checkpoints"),
                mend=harms.remove_all_but_the_config, resumes="Started in"),
        Fault("newest save: its folder missing", half=True, harm=remove(NEWEST),
              says="Resumed at step 20 "),
        refused("all saves missing", says="none of its saves", harm=remove("checkpoints"),
                mend=remove(METRICS_FILE), resumes="Started in"),
        refused("all saves missing, their folders left", says="none of its saves",
                harm=harms.empty_folders, mend=remove(METRICS_FILE), resumes="Started in"),
        Fault("nothing saved yet", half=True, harm=harms.as_before_the_first_save,
              says="Nothing of the run before was saved: it starts again"),
        Fault("an old save: half deleted", half=True, harm=harms.half_of_an_old_save),
        Fault("an old save: an empty folder", half=True, harm=harms.empty_old_save),
        Fault("unfinished saves left behind", half=True, harm=harms.unfinished_saves),
    ]  # fmt: skip


def _texts() -> list[Fault]:
    refused = functools.partial(Fault, half=True, status=1, untouched=True, says=METRICS_FILE)
    whole = functools.partial(Fault, half=True, says="Resumed at step 24 ")
    garbage = edit_rows(lambda lines: [*lines[:3], b"\x00\xffgarbage\n", *lines[3:]])
    return [
        whole("metrics.jsonl: a partial last line",
              harm=edit_rows(lambda lines: [*lines, lines[-1][:30]])),
        whole("metrics.jsonl: the last line's newline missing",
              harm=edit_rows(lambda lines: [*lines, b'{"step": 27, "split": "train"}'])),
        refused("metrics.jsonl: garbage in the middle", harm=garbage, says="line 4",
                mend=edit_rows(lambda lines: lines[:3] + lines[4:]), resumes="Resumed at step 24 "),
        refused("metrics.jsonl: missing", harm=remove(METRICS_FILE),
                mend=harms.remove_all_but_the_config),
        refused("metrics.jsonl: empty", harm=edit_rows(lambda lines: []),
                mend=harms.remove_all_but_the_config),
        refused("metrics.jsonl: its last rows missing", harm=edit_rows(lambda lines: lines[:4]),
                mend=harms.remove_all_but_the_config),
        whole("config.json: missing", harm=remove("config.json")),
        whole("config.json: garbage", harm=lambda workdir: harms.zero(workdir / "config.json")),
    ]  # fmt: skip


def _surroundings() -> list[Fault]:
    other = functools.partial(Fault, half=True, same_bits=False)
    cores = f"Resumed at step 24 .*cores was {len(os.sched_getaffinity(0))}, is 1"
    few = len(os.sched_getaffinity(0)) == 1 or sys.platform != "linux"
    return [
        Fault("two processes in one workdir", procedure=harms.two_processes),
        Fault("a lock and holder that a kill left", half=True, harm=harms.stale_lock),
        Fault("the clock set back by ten years", half=True, during="clock@start", says="Resumed"),
        Fault("every file of next year", half=True, harm=harms.future, says="Resumed at step 24 "),
        other("one core instead of two", prefix=("taskset", "-c", "0"), says=cores,
              obstacle=lambda: "there is one core" if few else ""),
        other("two devices instead of one", says="Resumed .*device was 1 × cpu, is 2 × cpu",
              xla_flags="--xla_force_host_platform_device_count=2"),
    ]  # fmt: skip


# Of runs of several processes, whatever they learn; each is held against a run of its own kind.
PROCESSES = {
    name: Fault(name, procedure=procedure) for name, procedure in processes.PROCEDURES.items()
}
FAULTS = {
    fault.name: fault
    for fault in (
        *_killed(),
        *_signalled(),
        *_disk(),
        *_damaged(),
        *_texts(),
        *_surroundings(),
    )
} | PROCESSES
SHORT = (
    "kill -9: the middle of a chunk",
    "SIGTERM: the middle of an evaluation",
    "unfinished saves left behind",
)
