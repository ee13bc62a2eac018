"""The digits are scikit-learn's, in the split that its own function makes."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks.data.digits import TEST_IMAGES, digits, split


def test_images_and_split_are_scikit_learns() -> None:
    theirs = load_digits()
    images, labels = digits()
    assert np.array_equal(images, theirs.images)
    assert np.array_equal(labels, theirs.target)
    expected = train_test_split(
        range(len(labels)), test_size=TEST_IMAGES, stratify=theirs.target, random_state=0
    )
    for ours, places in zip(split(labels), expected, strict=True):
        assert np.array_equal(ours, places)
