"""Compare the CPU time of the default on more built-in images with that on 253.

    python -m benchmarks.budget IMAGES ...

IMAGES is 3264, as many as a public set of four classes has, or 20000.

Writes  docs/results/budget.json: by number of images, the CPU time in minutes, that of 253 images
        in the same run, their ratio, and the balanced accuracy on the test images
"""

import argparse
import json

from benchmarks.given_test import train_and_test
from brainmri.common.files import write_json
from tests.support.checkout import ROOT

RESULT = ROOT / "docs/results/budget.json"
FEW = {"no": 98, "yes": 155, "glioma": 0, "meningioma": 0, "pituitary": 0}
MANY = {
    3264: {"no": 500, "yes": 0, "glioma": 926, "meningioma": 937, "pituitary": 901},
    20000: {"no": 5000, "yes": 0, "glioma": 5000, "meningioma": 5000, "pituitary": 5000},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=int, nargs="+", choices=MANY)
    options = parser.parse_args()
    few, _ = measure(FEW)
    print(f"{sum(FEW.values())} images: {few} min", flush=True)
    results = json.loads(RESULT.read_bytes())
    for images in options.images:
        minutes, accuracy = measure(MANY[images])
        results[str(images)] = {
            "cpu_minutes": minutes,
            "cpu_minutes_of_253": few,
            "ratio": round(minutes / few, 1),
            "balanced_accuracy": accuracy,
        }
        print(f"{images} images: {json.dumps(results[str(images)])}", flush=True)
        write_json(RESULT, results)


def measure(classes: dict[str, int]) -> tuple[float, float]:
    """Return the CPU time in minutes and the balanced accuracy on the test images."""
    result = train_and_test({f"phantom.classes.{name}": n for name, n in classes.items()})
    return round(result["cpu_minutes"], 1), result["balanced_accuracy"]


if __name__ == "__main__":
    main()
