"""What a member computes on: decided by the devices that are there when it starts."""

import keras
import tensorflow as tf


def set_up(threads: int, seed: int) -> str:
    """Prepare TensorFlow to compute the same each time; call it before anything else of TensorFlow's.

    Parameters
    ----------
    threads : int
        CPU threads; another number rounds differently.
    seed : int
        Of weights, dropout and shuffling.

    Returns
    -------
    str
        Keras's name of the precision: "float32", or "mixed_float16" on GPUs made for it.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    precision = choose_precision([tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus])
    keras.config.set_dtype_policy(precision)
    return precision


def choose_precision(compute_capabilities: list[tuple[int, int] | None]) -> str:
    """Mixed precision if there are GPUs and all have units for it (compute capability 7.0 or more), else float32.

    A CPU emulates 16-bit floats, many times slower than it computes with 32 bits.
    """
    able = [capability is not None and tuple(capability) >= (7, 0) for capability in compute_capabilities]
    return "mixed_float16" if able and all(able) else "float32"
