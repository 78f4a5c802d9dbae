"""The sweep over samplers: what it keeps, and what becomes of it when it is ended early."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.samplers.report import markdown
from bench.samplers.rows import rows
from bench.samplers.sweep import CELLS, CONTROLS, STEPS, Cell, Judged, Kept, arranged

from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.samplers import NOISY, SAMPLERS

FOUND = Judged(Cell("pndm", 20), 0, concept=True, color=True, correlation=0.9, image_psnr_db=36.0, image_ssim=0.98,
               latent_psnr_db=35.0)  # fmt: skip


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained(backend="onnxruntime", threads=1)


def of_all(seeds: range) -> list[Judged]:
    return [replace(FOUND, cell=cell, seed=seed) for cell in CELLS for seed in seeds]


def test_every_sampler_is_drawn_from_4_to_50_steps():
    for name in SAMPLERS:
        assert [cell.steps for cell in CELLS if cell.scheduler == name and cell.quality == "exact"] == list(STEPS)
    assert {cell.quality for cell in CELLS} == {"exact", "balanced", "fast"}
    assert any(cell.scheduler in NOISY for cell in CONTROLS)  # which has to be far away


def test_what_is_kept_is_read_again_but_for_a_line_cut_off(tmp_path):
    kept = Kept(tmp_path, "this bundle")
    assert kept.read() == []
    pictures = [FOUND, replace(FOUND, cell=Cell("ddim", 4, "fast"), seed=1, concept=False)]
    kept.add(pictures)
    assert kept.read() == pictures
    with kept.path.open("a") as file:
        file.write('{"cell": {"sched')
    again = Kept(tmp_path, "this bundle")
    again.add([FOUND])
    assert again.read() == [*pictures, FOUND]
    assert Kept(tmp_path, "another bundle").read() == []


def test_the_first_groups_are_like_all():
    pairs = [(f"{index:02}", "held out" if index < 15 else "trained") for index in range(60)]
    order = arranged(pairs)
    assert sorted(order) == pairs
    assert all([kind for _, kind in order[first : first + 4]].count("held out") == 1 for first in range(0, 60, 4))


def test_rows_are_of_the_pictures_that_every_cell_has(pipe):
    """A cell that is further than the others is not judged by other prompts."""
    ahead = [replace(FOUND, cell=CELLS[0], seed=seed, concept=False) for seed in range(4, 8)]
    control = [replace(FOUND, cell=CONTROLS[0], seed=0, image_psnr_db=51.0)]
    table = rows(pipe, [*of_all(range(4)), *ahead, *control])
    assert [row.pictures for row in table] == [4] * len(CELLS) + [1]
    assert {row.both for row in table} == {1.0}
    worse = rows(pipe, [*of_all(range(8)), *ahead])
    assert {row.cell: row.both for row in worse}[CELLS[0]] == 0.5
    text = markdown(table)
    assert "| `pndm` | 1 |" not in text
    assert "51.0" in text


def test_cost_is_what_the_manifest_counts(pipe):
    macs = sum(work.macs for work in Bundle.open(DEMO).manifest.components["unet"].work)
    by_cell = {row.cell: row for row in rows(pipe, of_all(range(1)))}
    assert by_cell[Cell("ddim", 20)].calls == 20
    assert by_cell[Cell("ddim", 20)].macs == 40 * macs  # two rows a call: the demo is guided
    assert by_cell[Cell("pndm", 20)].macs == 42 * macs
    assert by_cell[Cell("heun", 20)].macs == 78 * macs
    assert by_cell[Cell("pndm", 20, "balanced")].macs < 0.55 * 42 * macs
