"""Imports TensorFlow and Keras quietly, in two thirds of the time, and with settings that no environment changes.

Import it before anything that imports them. DVC does not know of environment variables, nor of ~/.keras/keras.json: a run
must not depend on them.
"""

import gc
import os
import sys
import tempfile

CHANGING = ("TF_", "XLA_", "KERAS_", "DNNL_", "ONEDNN_", "NVIDIA_TF32_OVERRIDE")  # variables that change results
HARMLESS = {"TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "KERAS_HOME"}

for name in {*os.environ} - HARMLESS:
    if name.startswith(CHANGING):
        del os.environ[name]
os.environ["KERAS_BACKEND"] = "tensorflow"
gc.disable()  # it would look through all of TensorFlow again and again while that is imported, for a quarter of the time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
unused = [name for name in ("matplotlib", "pandas", "sklearn") if name not in sys.modules]
sys.modules.update(dict.fromkeys(unused))  # Keras imports them if they are there, which takes a second
with tempfile.TemporaryFile() as said:  # TensorFlow tells of the machine before it heeds the level of its log
    errors = os.dup(2)
    os.dup2(said.fileno(), 2)
    try:
        import keras
    except BaseException:
        said.seek(0)
        os.write(errors, said.read())
        raise
    finally:
        os.dup2(errors, 2)
        os.close(errors)

for name in unused:
    del sys.modules[name]

keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")
gc.freeze()
gc.enable()
