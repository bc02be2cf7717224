"""What a member trains on: precision, replicas, and settings that make TensorFlow repeatable.

Functions of the devices decide what to use; `configure_devices` asks TensorFlow for the devices.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import keras
import tensorflow as tf

from brainmri.common.errors import UserError
from brainmri.common.resources import usable_cores

TENSOR_CORES = (7, 0)  # compute capability of the first GPUs that have them, for 16-bit floats


@dataclass(frozen=True)
class Devices:
    """What `configure_devices` chose.

    Attributes
    ----------
    precision : {"float32", "mixed_float16", "mixed_bfloat16"}
        Keras's name of it.
    strategy : tf.distribute.Strategy or None
        Over which a member's replicas train; None for a single one.
    """

    precision: str
    strategy: tf.distribute.Strategy | None

    def scope(self) -> AbstractContextManager:
        """Return the context in which the network is built and compiled."""
        return self.strategy.scope() if self.strategy else nullcontext()


def configure_devices(
    threads: int, seed: int, precision: str, replicas: int, optimize: bool = False
) -> Devices:
    """Make TensorFlow compute the same each time; call it before anything else of TensorFlow.

    Parameters
    ----------
    threads : int
        CPU threads of an operation; another number rounds differently. Operations that do not need
        each other's results run at the same time on all cores, which rounds nothing differently.
    seed : int
        Of weights, dropout and shuffling.
    precision : {"auto", "float32", "mixed_float16", "mixed_bfloat16"}
        See `choose_precision`.
    replicas : int
        Devices over which each batch is spread: GPUs, or where there is none, parts of the CPU.
    optimize : bool
        Optimize graphs on a CPU, too: pretrained networks predict and train faster, where others
        only start later.

    Raises
    ------
    UserError
        If there are GPUs, but fewer than replicas.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(usable_cores())
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not optimize})
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    policy = choose_precision(precision, [gpu.get("compute_capability") for gpu in details])
    keras.config.set_dtype_policy(policy)
    names = replica_devices(replicas, len(gpus))
    if names and not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, parts)
    return Devices(policy, tf.distribute.MirroredStrategy(names) if names else None)


def choose_precision(requested: str, compute_capabilities: list[tuple[int, int] | None]) -> str:
    """Choose the precision to compute in.

    Parameters
    ----------
    requested : {"auto", "float32", "mixed_float16", "mixed_bfloat16"}
        "auto" is "mixed_float16" where there are GPUs and all have Tensor Cores, else "float32": a
        CPU emulates 16-bit floats, many times slower than it computes with 32 bits. Any other is
        returned as it is.
    compute_capabilities : list of (major, minor) or None
        Of each GPU; None where TensorFlow does not report it.
    """
    if requested != "auto":
        return requested
    have_tensor_cores = [
        capability is not None and tuple(capability) >= TENSOR_CORES
        for capability in compute_capabilities
    ]
    is_mixed = have_tensor_cores and all(have_tensor_cores)
    return "mixed_float16" if is_mixed else "float32"


def replica_devices(replicas: int, gpus: int) -> list[str]:
    """Return TensorFlow's names of the devices of a member's replicas; none for a single replica.

    Parameters
    ----------
    replicas : int
    gpus : int
        Number of GPUs.

    Raises
    ------
    UserError
        If there are GPUs, but fewer than replicas.
    """
    if replicas == 1:
        return []
    if gpus and gpus < replicas:
        raise UserError(
            f"train.replicas is {replicas}, and a member has {gpus} GPU(s) here;"
            " expected at most that many"
        )
    kind = "GPU" if gpus else "CPU"
    return [f"{kind}:{index}" for index in range(replicas)]
