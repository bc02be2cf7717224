"""The app's memory after many predictions, by `make faults`.

Each is of a page of its own, with an image of its own.
"""

import psutil

from tests.support.app import running_app
from tests.support.images import encode_noise

BEFORE, AFTER = 50, 500  # predictions
TOLERANCE = 32 * 2**20  # bytes: a twentieth of what TensorFlow and Gradio take


def test_predictions_leave_memory_as_it_was(small, tmp_path, capsys):
    memory = {}
    with running_app(small, tmp_path / "temporary") as app:
        for number in range(1, AFTER + 1):
            app.predict(encode_noise(number), f"page-{number}")
            if number in (BEFORE, AFTER):
                memory[number] = psutil.Process(app.process.pid).memory_info().rss
    with capsys.disabled():
        for number, size in memory.items():
            print(f"memory after {number} predictions: {size // 2**20} MiB")
    assert memory[AFTER] - memory[BEFORE] < TOLERANCE
