"""The command line: what is printed, what is written, and that each mistake is one line and exit status 1."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import helper
from rich.console import Console
from small_models import F32, affine, gather, model, pair
from typer.testing import CliRunner

import omniop as package
from omniop import terminal
from omniop.cli import bar, main, outputs, show
from omniop.cli.app import app
from omniop.dispatcher import registry, watch
from omniop.terminal import UsageError

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
B = np.array([1, 1, 1], np.float32)


def omniop(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeeds(*arguments: object) -> str:
    result = omniop(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: object) -> str:
    """The one line that is said."""
    result = omniop(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Models and arrays by name."""
    made = {}
    for name, proto in (("affine", affine()), ("pair", pair()), ("gather", gather())):
        made[name] = tmp_path / f"{name}.onnx"
        onnx.save(proto, made[name])
    for name, array in (("x", X), ("b", B)):
        made[name] = tmp_path / f"{name}.npy"
        np.save(made[name], array)
    return made


@pytest.fixture
def inputs(files: dict[str, Path]) -> list[str]:
    return ["--input", f"x={files['x']}", "--input", f"b={files['b']}"]


# What it does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_run_from_files_writes_outputs(device: str, files: dict[str, Path], inputs: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    text = succeeds("run", files["affine"], "--device", device, *inputs, "--output-dir", folder)
    np.testing.assert_array_equal(np.load(folder / "y.npy"), np.maximum(X + B, 0))
    assert [p.name for p in folder.iterdir()] == ["y.npy"]
    row = next(line for line in text.splitlines() if line.startswith("y "))
    assert row.split()[:7] == ["y", "float32", "[2,", "3]", "0", "2", "6"]
    assert f"{device}: 2 nodes in 1 kernel" in text


def test_run_json(files: dict[str, Path], inputs: list[str]) -> None:
    found = json.loads(succeeds("run", files["affine"], "--device", "reference", *inputs, "--json"))
    expected = {"name": "y", "dtype": "float32", "shape": [2, 3], "min": 0, "mean": 2, "max": 6, "not_finite": 0}
    assert found["outputs"] == [{**expected, "file": None}]
    assert found["devices"] == ["reference"]
    assert found["copied_bytes"] == 0


def test_random_data_is_the_seed_s(files: dict[str, Path]) -> None:
    def ran(*more: object) -> Any:
        line = ("run", files["affine"], "--device", "reference", "--random", "--dim", "batch=2", "--json", *more)
        return json.loads(succeeds(*line))["outputs"]

    assert ran()[0]["shape"] == [2, 3]
    assert ran() == ran("--seed", 0)
    assert ran() != ran("--seed", 1)


def test_random_dims_come_from_given_inputs_and_by_place(files: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros(5, np.float32))
    command = ("run", files["pair"], "--device", "reference", "--random", "--json")
    found = json.loads(succeeds(*command, "--input", f"p={tmp_path / 'p.npy'}"))
    assert found["outputs"][0]["shape"] == [5]
    command = ("run", files["gather"], "--device", "reference", "--random", "--json")
    found = json.loads(succeeds(*command, "--dim", "table:1=7", "--dim", "k=2"))
    assert found["outputs"][0]["shape"] == [2, 7]


def test_explain(files: dict[str, Path]) -> None:
    command = ("explain", files["affine"], "--device", "reference", "--random", "--dim", "batch=2")
    text = succeeds(*command)
    for words in ("2 nodes", "Add", "Relu", "core prims", "template 0: 1 kernel", "reference: 2 nodes in 1 kernel"):
        assert words in text
    found = json.loads(succeeds(*command, "--json"))
    assert [n["op"] for n in found["nodes"]] == ["Add", "Relu"]
    assert len(found["templates"]) == 1


def test_threads(files: dict[str, Path]) -> None:
    command = (files["affine"], "--device", "cpu", "--random", "--dim", "batch=2", "--threads", 3)
    assert "cpu: 2 nodes in 1 kernel on 3 threads" in succeeds("run", *command)
    assert json.loads(succeeds("explain", *command, "--json"))["threads"] == {"cpu": 3}


def test_devices() -> None:
    assert "reference" in succeeds("devices")
    usable = json.loads(succeeds("devices", "--json"))
    assert {d["name"] for d in usable} >= {"reference", "cpu"}
    assert all(d["problem"] is None for d in usable)
    every = json.loads(succeeds("devices", "--all", "--json"))
    assert [d for d in every if d["problem"] is None] == usable


def test_conformance_is_the_suite_s_own_command() -> None:
    assert "test_relu" in succeeds("conformance", "--filter", "^test_relu$", "--list")
    assert "--min-pass" in succeeds("conformance", "--help")
    assert omniop("conformance", "--no-such-option").exit_code == 2


def test_version_is_the_package_s() -> None:
    metadata = tomllib.loads(Path(package.__path__[0], "../pyproject.toml").read_text())
    assert succeeds("--version") == f"omniop {metadata['project']['version']}\n"


def test_without_elements_there_is_no_work(files: dict[str, Path]) -> None:
    text = succeeds("run", files["affine"], "--device", "reference", "--random", "--dim", "batch=0")
    assert "tensor work: none; 0 bytes" in text


def test_in_a_pipe_no_blanks_end_a_line(files: dict[str, Path]) -> None:
    for line in ("devices", "--all"), ("explain", files["pair"], "--device", "reference", "--random", "--dim", "n=2"):
        assert not [row for row in succeeds(*line).splitlines() if row.endswith(" ")]


def test_a_narrow_terminal_leaves_numbers_whole() -> None:
    out = Console(width=60, file=io.StringIO())
    row = outputs.Summary("hidden_states", "float32", [128, 64], -7.62966, -0.363415, 5.54355)
    out.print(show.outputs_table([row], {"hidden_states": Path("out/hidden_states.npy")}))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    for word in ("-7.62966", "-0.363415", "5.54355", "float32"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 60


def test_devices_that_cannot_be_used_have_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = package.DeviceInfo("chip", "my chip", "1.0", ("bfloat16", "float32", "float8_e5m2", "int8"))
    absent = package.DeviceInfo("other", "", "", (), "it needs a driver: pip install chip-driver")
    monkeypatch.setattr(package, "devices", lambda **_: [there, absent])
    text = succeeds("devices", "--all")
    assert "bfloat16, float32, 1 narrower float; 1 integer and bool" in text
    assert "other  not available: it needs a driver: pip install chip-driver\n" in text
    assert "1 not available: omniop devices --all says why" in succeeds("devices")


def test_help_teaches_by_example() -> None:
    assert "omniop run model.onnx --random" in succeeds("--help")
    for command in ("devices", "run", "explain", "conformance"):
        assert f"omniop {command} " in succeeds(command, "--help")


def test_help_is_light() -> None:
    modules = "print(*{m.split('.')[0] for m in sys.modules})"
    code = f"import sys, omniop.cli.app, omniop.conformance.__main__; {modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "onnx", "onnx_ir", "llvmlite"} & set(done.stdout.split())


# What it says of mistakes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_name", "arguments", "words"),
    [
        (
            "affine",
            [],
            ["'x' (float32 [batch, 3])", "'b' (float32 [3])", "--input x=FILE.npy", "--random --dim batch=SIZE"],
        ),
        ("affine", ["--random"], ["'x'", "--dim batch=SIZE"]),
        ("affine", ["--random", "--dim", "bach=2"], ["--dim bach", "they have: batch"]),
        ("affine", ["--random", "--dim", "batch=two"], ["--dim batch=two", "whole number"]),
        ("affine", ["--random", "--dim", "batch"], ["'batch'", "NAME=SIZE"]),
        ("affine", ["--random", "--dim", "batch=99999999999999"], ["'x'", "no memory", "[99999999999999, 3]"]),
        ("affine", ["--random", "--dim", "batch=9999999999999999999"], ["'x'", "no memory"]),
        ("affine", ["--dim", "batch=2"], ["--random"]),
        ("affine", ["--input", "x"], ["'x'", "NAME=FILE.npy"]),
        ("affine", ["--input", "x=x.npy", "--input", "x=y.npy"], ["'x' is given twice"]),
        ("affine", ["--input", "x=absent.npy"], ["absent.npy", "No such file"]),
        ("gather", ["--random", "--dim", "k=2"], ["'table'", "--dim table:1=SIZE"]),
        ("affine", ["--device", "nowhere"], ["no device 'nowhere'", "reference"]),
    ],
)
def test_mistake_is_one_line(
    model_name: str, arguments: list[str], words: list[str], files: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    device = [] if "--device" in arguments else ["--device", "reference"]
    line = fails("run", files[model_name], *device, *arguments, "--output-dir", folder)
    for word in words:
        assert word in line
    assert not folder.exists()


def test_feeds_that_do_not_fit(files: dict[str, Path], tmp_path: Path) -> None:
    command = ("run", files["affine"], "--device", "reference", "--random", "--dim", "batch=2")
    line = fails("run", files["affine"], "--device", "reference", "--input", f"c={files['b']}")
    assert "--input c: the model has no such input; it has: 'x' (float32 [batch, 3]), 'b' (float32 [3])" in line
    np.save(tmp_path / "wide.npy", B.astype(np.float64))
    assert "float32 is needed" in fails(*command, "--input", f"b={tmp_path / 'wide.npy'}")


def test_files_that_are_no_arrays(files: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", a=B)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "cut.npy").write_bytes(files["b"].read_bytes()[:-2])
    for name in ("several.npz", "objects.npy", "text.npy", "cut.npy"):
        path = tmp_path / name
        line = fails("run", files["affine"], "--device", "reference", "--input", f"b={path}")
        assert str(path) in line
        assert "unsafely" not in line


@pytest.mark.parametrize("command", ["run", "explain"])
def test_model_that_cannot_be_read(command: str, files: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(files["affine"].read_bytes()[:40])
    assert str(cut) in fails(command, cut, "--device", "reference", "--random")
    assert "absent.onnx" in fails(command, tmp_path / "absent.onnx", "--device", "reference")


def test_nothing_is_written_when_the_run_fails(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "y.npy").write_bytes(b"before")
    np.save(tmp_path / "far.npy", np.array([9]))
    feeds = ["--random", "--dim", "table:1=2", "--input", f"index={tmp_path / 'far.npy'}"]
    line = fails("run", files["gather"], "--device", "reference", *feeds, "--output-dir", folder)
    assert "Gather" in line
    assert [p.name for p in folder.iterdir()] == ["y.npy"]
    assert (folder / "y.npy").read_bytes() == b"before"


def test_output_dir_that_is_a_file(files: dict[str, Path], inputs: list[str]) -> None:
    assert "is a file" in fails("run", files["affine"], "--device", "reference", *inputs, "--output-dir", files["x"])


def test_debug_lets_the_error_through(files: dict[str, Path]) -> None:
    result = omniop("run", files["affine"], "--device", "reference", "--debug")
    assert isinstance(result.exception, UsageError)


def test_fallback_is_a_note_or_an_error(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    load = package.load
    monkeypatch.setattr(package, "load", lambda *a, **k: load(*a, **k, exclude={"reference": ["Relu"]}))
    command = ("run", files["affine"], "--device", "reference", "--random", "--dim", "batch=2", "--fallback")
    noted = omniop(*command, "warn")
    assert noted.exit_code == 0
    assert noted.stderr.startswith("note: Relu")
    assert "cpu: 1 node" in noted.stdout
    assert omniop(*command, "silent").stderr == ""
    assert "Relu" in fails(*command, "error")


# Parts ----------------------------------------------------------------------------------------------


def test_summary_of_each_kind() -> None:
    odd = outputs.summary("y", np.array([1, np.nan, 3, np.inf], np.float32))
    assert (odd.min, odd.mean, odd.max, odd.not_finite) == (1, 2, 3, 2)
    narrow = outputs.summary("y", np.array([-1, 2], ml_dtypes.bfloat16))
    assert (narrow.dtype, narrow.min, narrow.max) == ("bfloat16", -1, 2)
    large = outputs.summary("y", np.array([2**62 + 1], np.int64))
    assert large.max == 2**62 + 1
    assert outputs.summary("y", np.array([True, False])).mean == 0.5
    for array in (np.zeros((0, 2)), np.array(["a"], object), np.array([1j])):
        assert outputs.summary("y", array).min is None


def test_written_names_and_kinds(tmp_path: Path) -> None:
    values = {"a/b": B, "a:b": X, "words": np.array(["one", "three"], object), "list": [B, X], "none": None}
    paths = outputs.write_arrays(values, tmp_path)
    names = ["a_b.npy", "a_b-2.npy", "words.npy", "list[0].npy", "list[1].npy"]
    assert [p.name for p in paths.values()] == names
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    np.testing.assert_array_equal(np.load(paths["a:b"]), X)
    assert np.load(paths["words"]).tolist() == ["one", "three"]


def test_narrow_types_survive_a_file(tmp_path: Path) -> None:
    """numpy writes bfloat16 as raw bytes; the model's declared type gives them their name back."""
    dtype = onnx.TensorProto.BFLOAT16
    path, array = tmp_path / "cast.onnx", np.array([1, -2], ml_dtypes.bfloat16)
    onnx.save(model([helper.make_node("Cast", ["x"], ["y"], to=F32)], {"x": (dtype, [2])}, "y"), path)
    paths = outputs.write_arrays({"x": array}, tmp_path)
    succeeds("run", path, "--device", "reference", "--input", f"x={paths['x']}", "--output-dir", tmp_path)
    assert np.load(tmp_path / "y.npy").tolist() == [1, -2]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []

    def save(path: Path, *_: object, **__: object) -> None:
        if saved:
            raise OSError(28, "No space left on device", str(path))
        saved.append(path)
        path.write_bytes(b"first")

    monkeypatch.setattr(np, "save", save)
    folder = tmp_path / "out"
    with pytest.raises(UsageError, match=r"--output-dir .*out cannot be written: No space"):
        outputs.write_arrays({"a": X, "b": B}, folder)
    assert saved
    assert not folder.exists()


@pytest.mark.parametrize(
    ("patience", "terminal", "shows"), [(0.01, True, True), (60, True, False), (0.01, False, False)]
)
def test_a_bar_is_for_long_work_on_a_terminal(
    patience: float, terminal: bool, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar, "PATIENCE", patience)
    written = io.StringIO()
    with bar.busy("loading", Console(file=written, force_terminal=terminal, width=100)):
        time.sleep(0.3)
    assert ("loading" in written.getvalue()) is shows


def test_a_bar_tells_what_the_dispatcher_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "PATIENCE", 0.01)
    written = io.StringIO()
    with bar.busy("running", Console(file=written, force_terminal=True, width=100)):
        time.sleep(0.1)
        watch.tell("placing nodes", 1, 4)
        time.sleep(0.3)
        placed = written.getvalue()
        watch.tell("compiling 3 kernels")
        time.sleep(0.3)
    assert "running: placing nodes" in placed
    assert "left" in placed or "nearly done" in placed
    assert "running: compiling 3 kernels" in written.getvalue()


def test_a_run_tells_its_watcher() -> None:
    told: list[tuple[str, int, int]] = []
    with watch.watched_by(lambda *step: told.append(step)):
        package.load(affine(), "reference").run({"x": X, "b": B})
    package.load(affine(), "reference").run({"x": X, "b": B})
    assert [step for step in told if step[0] == "placing nodes"] == [("placing nodes", k, 2) for k in (0, 1)]


# Shells ---------------------------------------------------------------------------------------------


def in_a_process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "omniop.cli", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{**streams, **options})


def test_device_names_are_completed() -> None:
    assert terminal.GROUP == registry.GROUP
    assert terminal.device_names("c") == ["cpu", "cuda"]
    for command, completed in (
        ("run --device ref", "reference"),
        ("demo --device ref", "reference"),
        ("conformance --device ref", "reference"),
        ("conformance --from-m", "--from-model"),
        ("conformance di", "diff"),
    ):
        words = {"COMP_WORDS": f"omniop {command}", "COMP_CWORD": str(len(command.split()))}
        done = in_a_process(env={**os.environ, **words, "_OMNIOP_COMPLETE": "complete_bash"})
        assert done.communicate(timeout=60)[0].split() == [completed]
    code = "import sys; from omniop.terminal import device_names; device_names(''); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnx", "omniop.dispatcher", "rich"} & set(loaded)


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in succeeds("--help")
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # whatever started the tests
    assert "_omniop_completion" in in_a_process("--show-completion", "bash", env=named).communicate(timeout=60)[0]


def test_ctrl_c_is_one_line(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "load", interrupted)
    result = omniop("run", files["affine"], "--random", "--dim", "batch=2")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "\ninterrupted\n")


def test_ctrl_c_while_modules_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("omniop.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "\ninterrupted\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's full device")
@pytest.mark.parametrize("form", [["--json"], []])
def test_output_that_cannot_be_written(form: list[str], files: dict[str, Path]) -> None:
    with open("/dev/full", "w") as full:
        arguments = ("run", files["pair"], "--random", "--dim", "n=2", "--device", "reference", *form)
        process = in_a_process(*arguments, stdout=full)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (1, "error: standard output: No space left on device\n")


def test_output_that_is_closed(files: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("run", files["pair"], "--random", "--dim", "n=2", "--device", "reference", "--output-dir", tmp_path)
    process = in_a_process(*arguments, stdout=None, preexec_fn=lambda: os.close(1))
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    assert (tmp_path / "y.npy").exists()


def test_a_stream_without_the_letters_gets_others(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "größe"
    arguments = ("run", files["pair"], "--random", "--dim", "n=2", "--device", "reference", "--output-dir", folder)
    process = in_a_process(*arguments, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert "gr??e" in printed


def test_full_disk(files: dict[str, Path], tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: numpy's error then has no reason to tell."""
    resource = pytest.importorskip("resource")
    x = tmp_path / "x.npy"
    np.save(x, np.zeros(100_000, np.float32))
    folder = tmp_path / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = in_a_process(
        *("run", files["pair"], "--input", f"p={x}", "--input", f"q={x}", "--device", "reference"),
        *("--output-dir", folder),
        preexec_fn=limit,
    )
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, "")
    assert said.startswith(f"error: --output-dir {folder} cannot be written: ")
    assert len(said.splitlines()) == 1
    assert not folder.exists()


@pytest.mark.parametrize("folder", ["/proc/nowhere/out", "/dev/full"])
def test_folders_that_cannot_be_made(folder: str, files: dict[str, Path], inputs: list[str]) -> None:
    if not os.path.exists("/proc/self"):
        pytest.skip("Linux's file systems")
    line = fails("run", files["affine"], "--device", "reference", *inputs, "--output-dir", folder)
    assert f"--output-dir {folder}" in line
