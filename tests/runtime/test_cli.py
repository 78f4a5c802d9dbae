"""Commands leave with the promised code and say in two lines what happened; bugs keep their traceback."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.cli import bench, bundle, generate, make_parser, run_command
from nano_runtime.cli.output import Output
from nano_runtime.errors import NetworkError, OutputError, OutputExistsError, OutputNameError, StepsError
from nano_runtime.sampling.samplers import SAMPLERS


def run(action, argv=()):
    """Run an action behind the boundary."""
    return run_command(make_parser("nano-test", "A test.", ""), argparse.Namespace(), action, list(argv))


def raising(error):
    def action(_options):
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StepsError(0, 1000), 2, "0 steps"),
        (OutputError(Path("x"), "no permission"), 4, "x cannot be written"),
        (NetworkError("the far end hung up", "Try again."), 5, "hung up"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 4, "memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/full"), 4, "/full"),
        (OSError(errno.EACCES, "Permission denied", "/locked"), 4, "/locked"),
    ],
)
def test_what_a_user_caused_is_a_few_lines_and_a_code(capsys, error, code, words):
    assert run(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("nano-test: ")
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.EBADF, "Bad file descriptor"), AssertionError()])
def test_bugs_are_not_swallowed(error):
    with pytest.raises(type(error)):
        run(raising(error))


def test_a_malformed_command_line_leaves_with_2(capsys):
    assert run(lambda _options: 0, ["--nonsense"]) == 2
    assert capsys.readouterr().err == (
        "nano-test: there is no option --nonsense\nnano-test --help shows all options.\n"
    )


def test_sigterm_interrupts_and_lets_cleanup_run(tmp_path):
    program = (
        "import argparse, sys, time\n"
        "from nano_runtime.cli import make_parser, run_command\n"
        "def action(_):\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        for _ in range(600): time.sleep(0.1)\n"  # Python 3.14 may notice a signal after one sleep only
        "    finally:\n"
        f"        open({str(tmp_path / 'cleaned')!r}, 'w').close()\n"
        "sys.exit(run_command(make_parser('p', '', ''), argparse.Namespace(), action, []))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130  # half of the time that it would sleep
    process.stdout.close()
    assert (tmp_path / "cleaned").exists()


def test_the_old_sigterm_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    run(lambda _options: 0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_leaves_early_causes_no_noise():
    program = (
        "import argparse, sys\nfrom nano_runtime.cli import make_parser, run_command\n"
        "def action(_):\n    print('x\\n' * 1_000_000)\n    return 0\n"
        "sys.exit(run_command(make_parser('p', '', ''), argparse.Namespace(), action, []))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 141
    process.stderr.close()


def test_verify_is_0_for_a_whole_bundle(folder, capsys):
    assert bundle.main(["verify", str(folder)]) == 0
    assert "17 files" in capsys.readouterr().out


def test_verify_is_3_for_changed_and_for_unknown_files(folder, capsys):
    (folder / "extra").write_bytes(b"")
    assert bundle.main(["verify", str(folder)]) == 3
    assert "extra" in capsys.readouterr().err
    (folder / "unet/model.onnx").write_bytes(b"x")
    assert bundle.main(["verify", str(folder), "--json"]) == 3
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 2


def test_without_a_folder_the_demo_is_meant(capsys):
    from nano_runtime.bundle.folder import DEMO  # noqa: PLC0415

    for command in ("verify", "info", "card"):
        assert bundle.main([command]) == 0
        without = capsys.readouterr().out
        assert bundle.main([command, str(DEMO)]) == 0
        assert without == capsys.readouterr().out
    assert bundle.main(["sign", "--key", "my.pem"]) == 2  # nobody signs the demo by mistake


def test_info_shows_the_manifest(folder, capsys):
    assert bundle.main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    for words in ("somewhere/noise", "creativeml-openrail-m", "128 x 128", "unet_prompt", "41.5 dB"):
        assert words in text
    assert bundle.main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["name"] == "noise"


def test_info_says_what_int8_aims_at_and_what_that_cost(folder, capsys):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    moved = {"component": "unet", "layer": "conv_in/Conv", "scheme": "float", "reason": "31 dB alone", "share": 0.004}
    document.update(
        precision="int8",
        quantization={
            "plan": "w8a8",
            "goal_db": {"unet": 42.0},
            "changes": [moved, {**moved, "layer": "time/MatMul", "scheme": "w8a8", "share": 0.0151}],
            "equalized": 12,
        },
    )
    document["components"]["unet"]["fidelity"] = {"onnxruntime.psnr_db": 41.5, "openvino.psnr_db": 43.0}
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    assert bundle.main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "weights     int8\n" in text
    rows = [line.split() for line in text.splitlines()]
    (unet,) = (row for row in rows if row[:2] == ["unet", "int8"] or row[:2] == ["unet", "fp32"])
    assert " ".join(unet[-6:]) == "42 dB 41.5 dB 43.0 dB"
    assert "falls short of its goal: unet on onnxruntime, 41.5 dB of 42\n" in text
    assert "on openvino, 43.0" not in text
    assert "equalized   12 scales" in text
    assert "Layers in another scheme than the plan's: 2; arithmetic in floats: unet -1.1%\n" in text
    assert ["unet", "conv_in/Conv", "float", "0.4%", "31", "dB", "alone"] in rows
    assert ["unet", "time/MatMul", "w8a8", "1.5%", "31", "dB", "alone"] in rows

    document["quantization"] = {"plan": "w8a8"}
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    assert bundle.main(["info", str(folder)]) == 0
    plain = capsys.readouterr().out
    assert "weights     int8\n" in plain
    assert not {"equalized", "scheme", "goal"} & set(plain.split())


@pytest.mark.parametrize("argv", [["a fox", "--bundle"], ["a fox", "--steps", "many"], ["a", "--backend", "cuda"]])
def test_generate_knows_its_command_line(argv, capsys):
    assert generate.main(argv) == 2
    err = capsys.readouterr().err
    assert argv[1] in err
    assert len(err.splitlines()) == 2


def test_generate_refuses_before_it_draws(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"mine")
    bundled = ["a fox", "--bundle", str(folder)]
    assert generate.main(["a fox", "--bundle", "nowhere"]) == 3
    assert generate.main([*bundled, "-o", "there.png"]) == 2
    assert generate.main([*bundled, "-o", "fox.gif"]) == 2
    assert generate.main([*bundled, "-o", "nowhere/fox.png"]) == 4
    assert generate.main([*bundled, "-n", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_generate_refuses_a_tampered_tokenizer(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (folder / "tokenizer/tokenizer.json").write_bytes(b"[]")
    assert generate.main(["a fox", "--bundle", str(folder)]) == 3
    assert "tokenizer.json" in capsys.readouterr().err


def test_bench_names_the_engines_it_knows(folder, capsys):
    assert bench.main([str(folder), "--backend", "openvino:int4"]) == 2
    assert "openvino:bf16" in capsys.readouterr().err


def test_bench_refuses_a_report_it_could_not_write_before_it_measures(folder, tmp_path, capsys):
    assert bench.main([str(folder), "--json", str(tmp_path / "nowhere" / "report.json")]) == 4
    assert "nowhere" in capsys.readouterr().err


def test_help_names_every_scheduler():
    text = generate._parser().format_help()  # noqa: SLF001
    assert [name for name in SAMPLERS if name not in text] == []


def test_names_for_one_several_and_unnamed_pictures(tmp_path):
    target = tmp_path / "fox.png"
    assert Output.plan(target, 1, force=False).path(0, 7) == target
    several = Output.plan(target, 3, force=False)
    assert [several.path(i, 7 + i).name for i in range(3)] == ["fox-1.png", "fox-2.png", "fox-3.png"]
    assert Output.plan(tmp_path, 1, force=False).path(0, 7) == tmp_path / "nano-7.png"


def test_nothing_is_replaced_unasked(tmp_path):
    for name in ("nano-7.png", "nano-7-2.png", "fox.png", "owl-2.png"):
        (tmp_path / name).touch()
    assert Output.plan(tmp_path, 1, force=False).path(0, 7).name == "nano-7-3.png"
    with pytest.raises(OutputExistsError, match=r"fox\.png"):
        Output.plan(tmp_path / "fox.png", 1, force=False)
    with pytest.raises(OutputExistsError, match=r"owl-2\.png"):
        Output.plan(tmp_path / "owl.png", 2, force=False)
    assert Output.plan(tmp_path / "fox.png", 1, force=True).path(0, 7).name == "fox.png"


def test_places_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(OutputNameError):
        Output.plan(tmp_path / "fox.gif", 1, force=False)
    with pytest.raises(OutputError):
        Output.plan(tmp_path / "nowhere" / "fox.png", 1, force=False)
    if os.geteuid() != 0:  # root may write anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError):
            Output.plan(tmp_path / "fox.png", 1, force=False)
