"""onnxruntime's call shape: one call on both gives one answer; every option is honoured or refused by name."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from small_models import affine, model

import omniop
from omniop.backends.cpu.team import workers
from omniop.ort import options as ort_options
from omniop.ort import providers

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
B = np.array([1, 1, 1], np.float32)
EXPECTED = np.maximum(X + B, 0)
CPU = ["CPUExecutionProvider"]

BOTH = pytest.mark.parametrize("ort", [omniop, onnxruntime], ids=["omniop", "onnxruntime"])


def typed() -> onnx.ModelProto:
    """Inputs and outputs of several types; ``y = x + w`` where w is a weight that may be fed."""
    f32 = TensorProto.FLOAT
    tensor, sized = (helper.make_tensor_type_proto(f32, shape) for shape in (None, ["n", 3, None]))
    nodes = [
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("SequenceConstruct", ["x", "y"], ["s"]),
        helper.make_node("Optional", ["x"], ["o"]),
        helper.make_node("Identity", ["labels"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "the graph",
        [
            helper.make_tensor_value_info("x", f32, ["n", 3, None]),
            helper.make_tensor_value_info("w", f32, [1]),
            helper.make_tensor_value_info("labels", TensorProto.STRING, ["k"]),
        ],
        [
            helper.make_tensor_value_info("y", f32, ["n", 3, None]),
            helper.make_value_info("s", helper.make_sequence_type_proto(tensor)),
            helper.make_value_info("o", helper.make_optional_type_proto(sized)),
            helper.make_tensor_value_info("z", TensorProto.STRING, ["k"]),
        ],
        [helper.make_tensor("w", f32, [1], [2.0])],
        doc_string="of the graph",
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
        producer_name="a test",
        domain="org.example",
        model_version=7,
        doc_string="of the model",
    )
    helper.set_model_props(made, {"key": "value"})
    return made


TYPED_FEEDS = {"x": np.ones((2, 3, 1), np.float32), "labels": np.array(["a", "b"])}


def session(ort: Any, proto: onnx.ModelProto, *args: Any, **kwargs: Any) -> Any:
    kwargs.setdefault("providers", CPU)
    return ort.InferenceSession(proto.SerializeToString(), *args, **kwargs)


# The same on both -----------------------------------------------------------------------------------------------------


def test_what_a_session_says_of_its_model() -> None:
    ours, theirs = (session(ort, typed()) for ort in (omniop, onnxruntime))
    for method in ("get_inputs", "get_outputs", "get_overridable_initializers"):
        found, expected = (getattr(s, method)() for s in (ours, theirs))
        assert [(a.name, a.type, a.shape) for a in found] == [(a.name, a.type, a.shape) for a in expected]
        assert str(found[0]) == str(expected[0])
    found, expected = ours.get_modelmeta(), theirs.get_modelmeta()
    for name in vars(found):
        assert getattr(found, name) == getattr(expected, name)
    assert ours.get_providers() == theirs.get_providers() == CPU
    assert ours.get_provider_options() == theirs.get_provider_options()


@pytest.mark.parametrize(
    "number",
    [n for n in TensorProto.DataType.values() if 0 < n <= TensorProto.FLOAT8E5M2FNUZ and n not in (14, 15)],
    ids=TensorProto.DataType.Name,
)
def test_names_of_types(number: int) -> None:
    info = [helper.make_tensor_value_info(name, number, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    ours, theirs = (session(ort, proto).get_inputs()[0].type for ort in (omniop, onnxruntime))
    assert ours == theirs


@BOTH
def test_run(ort: ModuleType) -> None:
    made = session(ort, typed())
    y, sequence, optional, labels = made.run(None, TYPED_FEEDS)
    np.testing.assert_array_equal(y, np.full((2, 3, 1), 3, np.float32))
    assert [type(sequence), len(sequence)] == [list, 2]
    np.testing.assert_array_equal(sequence[1], y)
    np.testing.assert_array_equal(optional, TYPED_FEEDS["x"])
    assert labels.dtype == object
    assert labels.tolist() == ["a", "b"]
    assert [len(made.run(names, TYPED_FEEDS)) for names in ([], ["y"], ["z", "y", "z"])] == [4, 1, 3]
    (overridden,) = made.run(["y"], {**TYPED_FEEDS, "w": np.array([5], np.float32)})
    np.testing.assert_array_equal(overridden, y + 3)


@BOTH
def test_lists_take_the_type_of_the_input(ort: ModuleType) -> None:
    (found,) = session(ort, affine()).run(["y"], {"x": X.tolist(), "b": B.tolist()})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, EXPECTED)


@BOTH
def test_io_binding(ort: ModuleType) -> None:
    made = session(ort, affine())
    binding = made.io_binding()
    given = X.copy()
    binding.bind_cpu_input("x", given)
    binding.bind_input("b", "cpu", 0, np.float32, B.shape, B.ctypes.data)
    binding.bind_output("y")
    made.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], EXPECTED)
    (value,) = binding.get_outputs()
    assert (value.shape(), value.device_name(), value.data_type()) == ([2, 3], "cpu", "tensor(float)")

    target = np.zeros((2, 3), np.float32)
    binding.clear_binding_outputs()
    binding.bind_output("y", "cpu", 0, np.float32, target.shape, target.ctypes.data)
    given[:] = 1  # read when the run starts
    made.run_with_iobinding(binding)
    np.testing.assert_array_equal(target, np.full((2, 3), 2))

    kept = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32)
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(X))
    binding.bind_ortvalue_output("y", kept)
    made.run_with_iobinding(binding)
    np.testing.assert_array_equal(kept.numpy(), EXPECTED)


@BOTH
def test_ort_values(ort: ModuleType) -> None:
    value = ort.OrtValue.ortvalue_from_numpy(X)
    assert (value.is_tensor(), value.is_tensor_sequence(), value.has_value()) == (True, False, True)
    assert (value.element_type(), value.tensor_size_in_bytes()) == (TensorProto.FLOAT, 24)
    assert value.data_ptr() == X.ctypes.data
    feeds = {"x": value, "b": ort.OrtValue.ortvalue_from_numpy(B)}
    (found,) = session(ort, affine()).run_with_ort_values(["y"], feeds)
    np.testing.assert_array_equal(found.numpy(), EXPECTED)
    changed = ort.OrtValue.ortvalue_from_numpy(X.copy())
    changed.update_inplace(X + 1)
    np.testing.assert_array_equal(changed.numpy(), X + 1)


@BOTH
def test_a_dim_set_by_name(ort: ModuleType) -> None:
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("batch", 2)
    made = session(ort, affine(), options)
    assert made.get_inputs()[0].shape == [2, 3]
    np.testing.assert_array_equal(made.run(None, {"x": X, "b": B})[0], EXPECTED)
    with pytest.raises(Exception, match=r"(?s)x.*3.*2|x.*2.*3"):
        made.run(None, {"x": np.zeros((3, 3), np.float32), "b": B})


@BOTH
def test_options_are_kept(ort: ModuleType) -> None:
    options = ort.SessionOptions()
    assert (options.intra_op_num_threads, options.log_severity_level, options.enable_mem_pattern) == (0, -1, True)
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 2
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    with pytest.raises(RuntimeError, match="does not have configuration"):
        options.get_session_config_entry("session.disable_prepacking")
    assert not options.has_providers()
    made = session(ort, affine(), sess_options=options)
    assert made.get_session_options().intra_op_num_threads == 2
    np.testing.assert_array_equal(made.run(None, {"x": X, "b": B}, ort.RunOptions())[0], EXPECTED)


@pytest.mark.parametrize(
    ("key", "value", "calm"),
    [
        ("session.intra_op.allow_spinning", "0", True),
        ("session.intra_op.allow_spinning", "1", False),
        ("session.force_spinning_stop", "1", True),
        ("session.inter_op.allow_spinning", "0", False),
    ],
)
def test_threads_that_may_not_spin_sleep(key: str, value: str, calm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_team", workers.Team())
    options = omniop.SessionOptions()
    options.add_session_config_entry(key, value)
    omniop.InferenceSession(affine().SerializeToString(), options)
    assert workers.team().calm is calm
    with pytest.raises(omniop.OptionError, match="allow_spinning = 'perhaps' cannot be honoured"):
        options.add_session_config_entry("session.intra_op.allow_spinning", "perhaps")


@BOTH
def test_the_process(ort: ModuleType) -> None:
    assert "CPUExecutionProvider" in ort.get_available_providers()
    assert set(ort.get_available_providers()) <= set(ort.get_all_providers())
    assert ort.get_device() in ("CPU", "GPU")
    ort.disable_telemetry_events()


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "theirs"),
    [
        (ort_options.SESSION_OPTIONS, onnxruntime.SessionOptions),
        (ort_options.RUN_OPTIONS, onnxruntime.RunOptions),
    ],
    ids=["session", "run"],
)
def test_the_tables_say_something_of_every_option(table: dict[str, Any], theirs: type) -> None:
    made = theirs()
    public = {name for name in dir(theirs) if not name.startswith("_")}
    attributes = {name for name in public if not callable(getattr(made, name))}
    assert attributes == set(table)
    for name, option in table.items():
        assert option.read(getattr(made, name)) == option.default
    methods = {name for name in public - attributes if not hasattr(omniop.SessionOptions, name)}
    methods -= {name for name in methods if hasattr(omniop.RunOptions, name)}
    assert methods <= set(ort_options.REFUSED)


def test_threads_are_those_of_the_session() -> None:
    options = omniop.SessionOptions()
    assert session(omniop, affine(), options).session.threads is None
    options.intra_op_num_threads = 1
    assert session(omniop, affine(), options).session.threads == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: setattr(o, "enable_profiling", True), ["enable_profiling = True", "explain"]),
        (lambda o: setattr(o, "optimized_model_filepath", "m.onnx"), ["optimized_model_filepath", "cannot be saved"]),
        (lambda o: setattr(o, "intra_op_num_threads", -1), ["intra_op_num_threads = -1"]),
        (lambda o: setattr(o, "intra_op_num_threads", "two"), ["intra_op_num_threads = 'two'"]),
        (lambda o: setattr(o, "graph_optimization_level", 5), ["graph_optimization_level = 5"]),
        (lambda o: setattr(o, "no_such_option", 1), ["no option 'no_such_option'", "it has: intra_op_num_threads"]),
        (lambda o: o.register_custom_ops_library("ops.so"), ["register_custom_ops_library", "model-local"]),
        (lambda o: o.add_initializer("w", X), ["add_initializer", "weights"]),
        (lambda o: o.add_session_config_entry("session.no_such_key", "1"), ["'session.no_such_key'"]),
        (lambda o: o.add_session_config_entry("session.load_model_format", "ORT"), ["'ORT'", "an ONNX file"]),
        (lambda o: o.add_session_config_entry("session.set_denormal_as_zero", "1"), ["denormal numbers are kept"]),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(change: Any, words: list[str]) -> None:
    with pytest.raises(omniop.OptionError) as caught:
        change(omniop.SessionOptions())
    for word in words:
        assert word in str(caught.value)


def test_onnxruntime_s_own_options_are_read() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    made = session(omniop, affine(), options)
    assert (made.session.threads, made.session.fallback) == (1, "error")
    np.testing.assert_array_equal(made.run(None, {"x": X, "b": B}, onnxruntime.RunOptions())[0], EXPECTED)
    options.enable_profiling = True
    with pytest.raises(omniop.OptionError, match="enable_profiling"):
        session(omniop, affine(), options)
    with pytest.raises(omniop.OptionError, match="a SessionOptions of omniop or onnxruntime is needed, not a dict"):
        session(omniop, affine(), {"intra_op_num_threads": 1})


def test_run_options() -> None:
    made = session(omniop, affine())
    options = omniop.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    options.only_execute_path_to_fetches = True
    np.testing.assert_array_equal(made.run(None, {"x": X, "b": B}, options)[0], EXPECTED)
    options.terminate = True
    with pytest.raises(omniop.ExecutionError, match="terminate"):
        made.run(None, {"x": X, "b": B}, options)
    with pytest.raises(omniop.OptionError, match="add_active_adapter"):
        omniop.RunOptions().add_active_adapter(None)


# Providers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "more", "devices", "told"),
    [
        (None, None, ["cpu"], CPU),
        (CPU, None, ["cpu"], CPU),
        (["reference"], None, ["reference"], ["reference"]),
        (["reference", *CPU], None, ["reference", "cpu"], ["reference", *CPU]),
        ([(CPU[0], {"arena_extend_strategy": "kSameAsRequested", "device_id": 0})], None, ["cpu"], CPU),
        (CPU, [{"device_id": 0}], ["cpu"], CPU),
        ([CPU[0], CPU[0]], None, ["cpu"], CPU),
    ],
)
def test_devices_of_providers(given: Any, more: Any, devices: list[str], told: list[str]) -> None:
    made = session(omniop, affine(), providers=given, provider_options=more)
    assert [d.name for d in made.session.devices] == devices
    assert made.get_providers() == told


def test_a_number_goes_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(providers, "_missing", lambda name: asked.append(name))
    chosen = providers.choose(
        [("CUDAExecutionProvider", {"device_id": 1}), ("opencl", {"device_id": "2"})], None, "warn"
    )
    assert chosen.devices == ["cuda:1", "opencl:2"]
    assert chosen.providers["CUDAExecutionProvider"] == {"device_id": "1"}
    monkeypatch.setattr(providers, "_missing", lambda name: None)
    assert providers.get_available_providers() == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers.get_device() == "GPU"


def test_a_provider_that_is_not_there_is_passed_over() -> None:
    listed = ["TensorrtExecutionProvider", ("CUDAExecutionProvider", {"device_id": 77}), "CPUExecutionProvider"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert session(omniop, affine(), providers=listed).get_providers() == CPU
    assert [w.category for w in caught] == [omniop.FallbackWarning] * 2
    assert "'TensorrtExecutionProvider' is not available" in str(caught[0].message)
    assert __file__ == caught[0].filename

    options = omniop.SessionOptions()
    options.log_severity_level = 3
    assert session(omniop, affine(), options, providers=listed[:1]).get_providers() == CPU
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with pytest.raises(omniop.DeviceError, match="'TensorrtExecutionProvider' is not available"):
        session(omniop, affine(), options, providers=listed[:1])


def test_the_default_severity() -> None:
    omniop.set_default_logger_severity(4)
    try:
        assert session(omniop, affine(), providers=["DmlExecutionProvider"]).get_providers() == CPU
    finally:
        omniop.set_default_logger_severity(2)


def test_providers_of_the_options_and_set_later() -> None:
    options = omniop.SessionOptions()
    options.add_provider("reference", {})
    assert options.has_providers()
    made = session(omniop, affine(), options, providers=None)
    assert made.get_providers() == ["reference"]
    made.set_providers(CPU)
    assert made.get_providers() == CPU
    np.testing.assert_array_equal(made.run(None, {"x": X, "b": B})[0], EXPECTED)


@pytest.mark.parametrize(
    ("given", "more", "error", "words"),
    [
        (["FooExecutionProvider"], None, omniop.DeviceError, "'FooExecutionProvider'.*CPUExecutionProvider.*reference"),
        (["reference:9"], None, omniop.DeviceError, "reference:9"),
        ([(CPU[0], {"device_id": 3})], None, omniop.DeviceError, "cpu:3"),
        ([("CUDAExecutionProvider", {"user_compute_stream": 1})], None, omniop.OptionError, "'user_compute_stream'"),
        ([(CPU[0], {"device_id": "first"})], None, omniop.OptionError, "'first'"),
        ([7], None, omniop.OptionError, "not 7"),
        (CPU, [{}, {}], omniop.OptionError, "one mapping for each"),
    ],
)
def test_providers_that_are_refused(given: Any, more: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        session(omniop, affine(), omniop_options(), providers=given, provider_options=more)


def omniop_options() -> Any:
    """Fallback refused, so that a device that is not there is an error."""
    options = omniop.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_mistakes_in_a_call() -> None:
    made = session(omniop, affine())
    for call, words in (
        (lambda: made.run(None, {"x": X}), "missing feed: 'b'"),
        (lambda: made.run(["q"], {"x": X, "b": B}), "no output 'q'; it has: y"),
        (lambda: made.run("y", {"x": X, "b": B}), r"a list of names: \['y'\]"),
        (lambda: made.run(None, {"x": X, "b": B, "c": B}), "no input 'c'"),
        (lambda: made.io_binding().bind_cpu_input("c", X), "no input 'c'; it has: x, b"),
        (lambda: made.io_binding().bind_input("x", "cuda", 0, np.float32, [2, 3], 64), "memory of cuda"),
        (lambda: made.io_binding().bind_input("x", "cpu", 0, "no type", [2, 3], 64), "no element type"),
        (lambda: made.io_binding().bind_output("y", buffer_ptr=64), "element_type and shape"),
        (lambda: made.run_with_iobinding(made.io_binding()), "no output is bound"),
        (lambda: made.run_with_iobinding(session(omniop, affine()).io_binding()), "another session's"),
        (lambda: omniop.OrtValue([X]).numpy(), "no tensor but a list"),
        (lambda: omniop.OrtValue(X).update_inplace(B), r"float32 \[2, 3\] is needed, this is float32 \[3\]"),
    ):
        with pytest.raises(omniop.FeedError, match=words):
            call()
    with pytest.raises(omniop.OptionError, match="no option 'disabled_optimizers'"):
        session(omniop, affine(), disabled_optimizers=["x"])
    binding = made.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_cpu_input("b", B)
    binding.bind_ortvalue_output("y", omniop.OrtValue(np.zeros((1, 3), np.float32)))
    with pytest.raises(omniop.FeedError, match=r"'y' is float32 \[2, 3\], and bound to memory for float32 \[1, 3\]"):
        made.run_with_iobinding(binding)


def test_an_optional_input_may_be_left_out() -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    proto = model([helper.make_node("OptionalHasElement", ["x"], ["y"])], {}, "y")
    proto.graph.input.append(helper.make_value_info("x", kind))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.BOOL, []))
    for ort in (omniop, onnxruntime):
        assert [a.type for a in session(ort, proto).get_inputs()] == ["optional(tensor(float))"]
        assert not session(ort, proto).run(None, {"x": None})[0]
    assert not session(omniop, proto).run(None, {})[0]
