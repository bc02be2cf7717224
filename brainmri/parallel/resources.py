"""How many members train at a time on this machine. It decides no result."""

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import get_args

from brainmri.common.params import IncludedNetwork, KerasApplication

# Bytes that a member's process needs at most, at 160 pixels: with a network of the project's own,
# with EfficientNet-Lite0 (1.1 GiB were measured), and with one of Keras Applications
OWN_NETWORK_MEMORY = 2**30
INCLUDED_NETWORK_MEMORY = 2**31
APPLICATION_MEMORY = 2**32
NVIDIA_SMI_TIMEOUT_S = 300


@dataclass(frozen=True)
class Jobs:
    """How many members train at a time, and why not more.

    Attributes
    ----------
    number : int
        At least 1.
    limit : str
        What allows no more.
    last : int
        Once no more than this many members are left, all of them run: the last ones share the
        cores, some of which would be idle otherwise. Five members on two cores run as two and
        three, not as two, two and one.
    """

    number: int
    limit: str
    last: int


def member_memory(network: str) -> int:
    """Return the bytes that a member's process needs at most."""
    if network in get_args(KerasApplication):
        return APPLICATION_MEMORY
    return INCLUDED_NETWORK_MEMORY if network in get_args(IncludedNetwork) else OWN_NETWORK_MEMORY


def number_of_jobs(
    wanted: int | str,
    stale: int,
    threads: int,
    cores: int,
    memory: int,
    gpu_slots: int = 0,
    memory_each: int = OWN_NETWORK_MEMORY,
) -> Jobs:
    """Compute how many members to train at a time.

    Parameters
    ----------
    wanted : int or "auto"
        The user's choice, which free memory may reduce. "auto" is one for each core.
    stale : int
        Members to train.
    threads : int
        CPU threads of each.
    cores : int
        Cores that this process may use.
    memory : int
        Free bytes.
    gpu_slots : int
        Members for which the GPUs have room; 0 without GPUs.
    memory_each : int
        Bytes that a member needs at most.
    """
    slots = max(1, cores // threads)
    limits = {
        "members to train": stale,
        "free memory": memory // memory_each,
        "fan_out.jobs": wanted if wanted != "auto" else stale,
        "GPUs": gpu_slots or stale,
        "cores": slots if wanted == "auto" and not gpu_slots else stale,
    }
    limit = min(limits, key=limits.get)
    number = max(1, limits[limit])
    last = min(2 * slots - 1, limits["free memory"]) if limit == "cores" else number
    return Jobs(number, limit, max(number, last))


def gpu_slots(gpus: list[str], replicas: int, members_per_gpu: int) -> list[str]:
    """Return a value of CUDA_VISIBLE_DEVICES for each member that trains at a time.

    Parameters
    ----------
    gpus : list of str
        Names of the GPUs, such as "0".
    replicas : int
        GPUs of a member.
    members_per_gpu : int
        Members that share a GPU at a time.

    Returns
    -------
    list of str
        Empty without GPUs. Neighbors in the list have different GPUs, so that few members spread
        over all.
    """
    groups = [",".join(gpus[start : start + replicas]) for start in range(0, len(gpus), replicas)]
    return groups[: max(1, len(gpus) // replicas)] * members_per_gpu


def visible_gpus() -> list[str]:
    """Return the GPUs that TensorFlow can use, by their names in CUDA_VISIBLE_DEVICES.

    TensorFlow is asked only where there may be some, since its import takes seconds. A line is
    printed if it can't use all that the driver reports.
    """
    listed = listed_gpus()
    count = tensorflow_gpus(",".join(listed)) if listed else 0
    if count == len(listed):
        return listed
    usable = [name for name in listed if tensorflow_gpus(name)] if count else []
    print(
        f"TensorFlow can use {len(usable)} of {len(listed)} GPU(s); to use all, install its CUDA"
        " libraries: pip install -r requirements/gpu.txt",
        flush=True,
    )
    return usable


def listed_gpus() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names or, if it is not set, those of the driver."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [name.strip() for name in names if name.strip() not in ("", "-1")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S
        )
    except OSError:
        return []
    except subprocess.TimeoutExpired:
        print(
            f"nvidia-smi has not answered for {NVIDIA_SMI_TIMEOUT_S} s; members train on the CPU",
            flush=True,
        )
        return []
    return answer.stdout.split() if answer.returncode == 0 else []


def tensorflow_gpus(names: str) -> int:
    """Count the GPUs that TensorFlow finds among these, a value of CUDA_VISIBLE_DEVICES, in a
    process of its own.
    """
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": names},
    )
    return int(answer.stdout.split()[-1]) if answer.returncode == 0 else 0
