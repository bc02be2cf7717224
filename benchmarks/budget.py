"""Compare the CPU time of the default on as many built-in images as two public sets have.

    python -m benchmarks.budget

Writes  docs/results/budget.json: by number of images, the CPU time in minutes, and their ratio
"""

import json

from benchmarks.given_test import train_and_test
from brainmri.common.files import write_json
from tests.support.checkout import ROOT

RESULT = ROOT / "docs/results/budget.json"
SETS = {
    253: {"no": 98, "yes": 155, "glioma": 0, "meningioma": 0, "pituitary": 0},
    3264: {"no": 500, "yes": 0, "glioma": 926, "meningioma": 937, "pituitary": 901},
}


def main() -> None:
    minutes = {}
    for images, classes in SETS.items():
        params = {f"phantom.classes.{name}": count for name, count in classes.items()}
        minutes[images] = round(train_and_test(params)["cpu_minutes"], 1)
        print(f"{images} images: {minutes[images]} min", flush=True)
    few, many = minutes.values()
    result = {"cpu_minutes": minutes, "ratio": round(many / few, 1)}
    write_json(RESULT, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
