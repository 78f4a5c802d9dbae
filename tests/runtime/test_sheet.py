"""Labelled sheets: every picture whole and in its place, with its labels outside of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from nano_runtime.pictures.sheet import labelled_sheet

COLOURS = ["red", "lime", "blue", "yellow", "magenta", "cyan"]


def test_pictures_stand_in_rows_under_their_labels():
    images = [Image.new("RGB", (64, 48), colour) for colour in COLOURS]
    sheet = labelled_sheet(images, ["steps 1", "steps 20", "steps 50"], ["guidance 1", "guidance 7.5"])
    left, top = sheet.width - 3 * 64, sheet.height - 2 * 48
    assert left > 40
    assert top > 10
    for index, image in enumerate(images):
        column, row = index % 3, index // 3
        box = (left + column * 64, top + row * 48, left + (column + 1) * 64, top + (row + 1) * 48)
        np.testing.assert_array_equal(np.asarray(sheet.crop(box)), np.asarray(image))
        assert np.ptp(np.asarray(sheet.crop((box[0], 0, box[2], top)))) > 200  # black on white above every column
    for row in range(2):
        assert np.ptp(np.asarray(sheet.crop((0, top + row * 48, left, top + (row + 1) * 48)))) > 200
    assert np.asarray(sheet.crop((0, 0, left, top))).min() == 255  # nothing in the corner


def test_a_single_row_needs_no_labels_beside_it():
    sheet = labelled_sheet([Image.new("RGB", (64, 48))] * 2, ["a", "a label that is wider than its picture"], [])
    assert sheet.width == 2 * 64
