"""Start TensorFlow quietly, quickly, and with settings that no environment changes."""

import gc
import os
import sys
import tempfile

# DVC knows neither environment variables nor ~/.keras/keras.json: results must not depend on them.
PREFIXES = ("TF_", "XLA_", "KERAS_", "DNNL_", "ONEDNN_", "NVIDIA_TF32_OVERRIDE")
HARMLESS = {
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_GPU_ALLOCATOR",
    "KERAS_HOME",
}
OPTIONAL = ("matplotlib", "pandas", "sklearn")  # Keras imports them if installed: a second


def start_tensorflow() -> None:
    """Import TensorFlow and Keras; call it before importing anything that imports them.

    It takes two thirds of the time of a plain import: garbage collection is off meanwhile, and
    Keras's optional imports are hidden from it. What TensorFlow prints about the machine before it
    obeys its log level is dropped, unless the import fails.
    """
    if "keras" in sys.modules:
        return
    for name in {*os.environ} - HARMLESS:
        if name.startswith(PREFIXES):
            del os.environ[name]
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # TensorFlow has it off on many CPUs, where it trains the project's own networks 1.5 times as
    # fast.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    gc.disable()
    try:
        keras = _import_quietly()
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        gc.enable()
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")


def _import_quietly():
    """Import Keras with standard error redirected, also that of native code."""
    with tempfile.TemporaryFile() as output:
        stderr = os.dup(2)
        os.dup2(output.fileno(), 2)
        try:
            import keras
        except BaseException:
            output.seek(0)
            os.write(stderr, output.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return keras
