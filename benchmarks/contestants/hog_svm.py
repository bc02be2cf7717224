"""Histograms of oriented gradients and a support vector machine: what people tried before networks.

python -m benchmarks.contestants.hog_svm IMAGES PROJECT
"""

import sys
from pathlib import Path

import numpy as np
from skimage.feature import hog
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.contestants.images import load, print_probabilities

SIDE = 128  # height and width of the images, pixels
CELL = (16, 16)  # pixels


def main() -> None:
    folder, project = map(Path, sys.argv[1:])
    images, labels, test_images, _ = load(folder, SIDE, project)
    features, test_features = (
        np.stack([hog(image, pixels_per_cell=CELL) for image in part])
        for part in (images, test_images)
    )
    classifier = make_pipeline(StandardScaler(), SVC(C=10))
    model = CalibratedClassifierCV(classifier, ensemble=False, cv=5).fit(features, labels)
    print_probabilities(model.predict_proba(test_features))


if __name__ == "__main__":
    main()
