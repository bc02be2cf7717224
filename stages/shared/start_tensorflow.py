"""Imports TensorFlow and Keras quietly and in two thirds of the time. Import it before anything that imports them."""

import gc
import os
import sys
import tempfile

gc.disable()  # it would look through all of TensorFlow again and again while that is imported, for a quarter of the time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
unused = [name for name in ("matplotlib", "pandas", "sklearn") if name not in sys.modules]
sys.modules.update(dict.fromkeys(unused))  # Keras imports them if they are there, which takes a second
with tempfile.TemporaryFile() as said:  # TensorFlow tells of the machine before it heeds the level of its log
    errors = os.dup(2)
    os.dup2(said.fileno(), 2)
    try:
        import keras  # noqa: F401
    except BaseException:
        said.seek(0)
        os.write(errors, said.read())
        raise
    finally:
        os.dup2(errors, 2)
        os.close(errors)

for name in unused:
    del sys.modules[name]

gc.freeze()
gc.enable()
