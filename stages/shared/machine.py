"""What this machine has, for deciding how many members train at a time. It decides no result."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

MEMBER_MEMORY = 2**30  # bytes that a member's process needs at most with a network of the project's own, at 128 pixels
APPLICATION_MEMORY = 2**32  # and with one of Keras Applications
DRIVER_TIMEOUT_S = 300
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Jobs:
    """How many members train at a time, and why not more.

    Attributes
    ----------
    number : int
        At least one.
    limit : str
        What allows no more.
    last : int
        Once no more than so many are left, all of them run: so the last ones share the cores, where otherwise some would
        stand idle. Five members on two cores go as two and three, not as two, two and one.
    """

    number: int
    limit: str
    last: int


def gpu_slots(gpus: list[str], replicas: int, members_per_gpu: int) -> list[str]:
    """Which GPUs the members that train at a time may see: a value of CUDA_VISIBLE_DEVICES for each of them.

    Parameters
    ----------
    gpus : list of str
        The names of the GPUs, such as "0".
    replicas : int
        GPUs of a member.
    members_per_gpu : int
        Members that share a GPU at a time.

    Returns
    -------
    list of str
        None where there are no GPUs. Neighbours have different GPUs, so that few members spread over all of them.
    """
    groups = [",".join(gpus[start : start + replicas]) for start in range(0, len(gpus), replicas)]
    return groups[: max(1, len(gpus) // replicas)] * members_per_gpu


def visible_gpus() -> list[str]:
    """List the GPUs that TensorFlow can use here, by their names in CUDA_VISIBLE_DEVICES.

    It is asked only where there may be some, since its import takes seconds. Prints a line where it can't use what the
    driver has.
    """
    listed = listed_gpus()
    count = tensorflow_gpus(",".join(listed)) if listed else 0
    if count == len(listed):
        return listed
    usable = [name for name in listed if tensorflow_gpus(name)] if count else []
    print(
        f"TensorFlow can use {len(usable)} of {len(listed)} GPU(s) here; to use all, install its CUDA libraries:"
        f" pip install 'tensorflow[and-cuda]=={version('tensorflow')}'",
        flush=True,
    )
    return usable


def listed_gpus() -> list[str]:
    """List the GPUs that CUDA_VISIBLE_DEVICES names or, where it is not set, those of the driver."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [name.strip() for name in names if name.strip() not in ("", "-1")]
    try:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_TIMEOUT_S)
    except OSError:
        return []
    except subprocess.TimeoutExpired:
        print(f"nvidia-smi has not answered for {DRIVER_TIMEOUT_S} s; members train on the CPU", flush=True)
        return []
    return answer.stdout.split() if answer.returncode == 0 else []


def tensorflow_gpus(names: str) -> int:
    """Count the GPUs that TensorFlow finds, in a process of its own, among these values of CUDA_VISIBLE_DEVICES."""
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": names}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return int(answer.stdout.split()[-1]) if answer.returncode == 0 else 0


def number_of_jobs(
    wanted: int | str, stale: int, threads: int, cores: int, memory: int, gpu_slots: int = 0, each: int = MEMBER_MEMORY
) -> Jobs:
    """How many members to train at a time.

    Parameters
    ----------
    wanted : int or "auto"
        The user's wish; memory may cut it short. "auto" is one for each core.
    stale : int
        Members that are to be trained.
    threads : int
        CPU threads of each.
    cores : int
        Cores that this process may use.
    memory : int
        Bytes that are free.
    gpu_slots : int
        Members that the GPUs have room for; 0 where there is no GPU.
    each : int
        Bytes that a member needs at most.

    Returns
    -------
    Jobs
    """
    slots = max(1, cores // threads)
    limits = {
        "members to train": stale,
        "free memory": memory // each,
        "fan_out.jobs": wanted if wanted != "auto" else stale,
        "GPUs": gpu_slots or stale,
        "cores": slots if wanted == "auto" and not gpu_slots else stale,
    }
    limit = min(limits, key=limits.get)
    number = max(1, limits[limit])
    last = min(2 * slots - 1, limits["free memory"]) if limit == "cores" else number
    return Jobs(number, limit, max(number, last))


def usable_cores() -> int:
    """Cores that this process may use: affinity and the container's quota are heeded."""
    import joblib  # here, since stages that are done in less than a second would notice its import

    return joblib.cpu_count()


def free_memory() -> int:
    """Bytes of memory that processes may still take, here or in this container, whichever is less."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (CGROUP / "memory.max").read_text().strip(), (CGROUP / "memory.current").read_text()
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
