"""What a member computes on. What to use is decided by functions of the devices that are there; `set_up` asks for them."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import keras
import tensorflow as tf

from stages.shared.errors import UserError

FLOAT16_UNITS = (7, 0)  # compute capability of the first GPUs that have them


@dataclass(frozen=True)
class Devices:
    """What `set_up` chose.

    Attributes
    ----------
    precision : str
        Keras's name of it: "float32", "mixed_float16" or "mixed_bfloat16".
    strategy : tf.distribute.Strategy or None
        Over which a member's replicas train; None for a single one.
    """

    precision: str
    strategy: tf.distribute.Strategy | None

    def scope(self) -> AbstractContextManager:
        """In which the network is built and compiled."""
        return self.strategy.scope() if self.strategy else nullcontext()


def set_up(threads: int, seed: int, precision: str, replicas: int) -> Devices:
    """Prepare TensorFlow to compute the same each time; call it before anything else of TensorFlow's.

    Parameters
    ----------
    threads : int
        CPU threads; another number rounds differently.
    seed : int
        Of weights, dropout and shuffling.
    precision : {"auto", "float32", "mixed_float16", "mixed_bfloat16"}
        See `choose_precision`.
    replicas : int
        Devices over which each batch is spread: GPUs, or where there is none, parts of the CPU.

    Raises
    ------
    UserError
        If there are GPUs, but fewer than replicas.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:  # on a CPU it makes small networks no faster, and takes a second to think about them
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]
    chosen = choose_precision(precision, capabilities)
    keras.config.set_dtype_policy(chosen)
    names = choose_replicas(replicas, len(gpus))
    if names and not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return Devices(chosen, tf.distribute.MirroredStrategy(names) if names else None)


def choose_precision(wanted: str, compute_capabilities: list[tuple[int, int] | None]) -> str:
    """The precision to compute in.

    Parameters
    ----------
    wanted : {"auto", "float32", "mixed_float16", "mixed_bfloat16"}
        "auto" is "mixed_float16" where there are GPUs and all have units for it, else "float32": a CPU emulates 16-bit
        floats, many times slower than it computes with 32 bits. Anything else is taken as it is.
    compute_capabilities : list of (major, minor) or None
        Of each GPU; None where it is not known.
    """
    if wanted != "auto":
        return wanted
    able = [capability is not None and tuple(capability) >= FLOAT16_UNITS for capability in compute_capabilities]
    return "mixed_float16" if able and all(able) else "float32"


def choose_replicas(replicas: int, gpus: int) -> list[str]:
    """TensorFlow's names of the devices that the replicas of a member train on; none for a single replica.

    Raises
    ------
    UserError
        If there are GPUs, but fewer than replicas.
    """
    if replicas == 1:
        return []
    if gpus and gpus < replicas:
        raise UserError(f"train.replicas is {replicas}, and a member has {gpus} GPU(s) here; expected at most that many")
    return [f"{'GPU' if gpus else 'CPU'}:{index}" for index in range(replicas)]
