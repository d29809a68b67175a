"""Session and run options of onnxruntime: a table says of each how it is honoured, or why it is refused.

An option without effect here is accepted where it is about memory, threads or messages, so that no result depends on
it. Anything else raises OptionError, which names the option. onnxruntime's own option objects are read by the same
tables, as far as they can be read: it has no getters for dimension overrides and initializers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, NoReturn, Self

from omniop.dispatcher.session import Fallback
from omniop.opset.errors import OmniopError


class OptionError(OmniopError, AttributeError):
    """An option of onnxruntime that omniop does not have, or a value of one that it cannot honour."""


class GraphOptimizationLevel(IntEnum):
    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(IntEnum):
    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(IntEnum):
    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


@dataclass(frozen=True)
class Option:
    """``meaning``: how it is honoured, or, where ``takes`` says no to a value, why it is not.

    ``read`` makes the value plain, and raises ValueError or TypeError for one of another kind.
    """

    default: Any
    meaning: str
    takes: Callable[[Any], bool] = lambda _: True
    read: Callable[[Any], Any] = lambda value: value


def _switch(default: bool, meaning: str) -> Option:
    return Option(default, meaning, read=bool)


_LOG = "messages are Python warnings; a level of 3 or more silences the one about fallbacks"

SESSION_OPTIONS: Mapping[str, Option] = {
    "intra_op_num_threads": Option(0, "threads of the cpu device, at least 0; 0: one a CPU", lambda n: n >= 0, int),
    "inter_op_num_threads": Option(0, "without effect: nodes run one after another", read=int),
    "execution_mode": Option(
        ExecutionMode.ORT_SEQUENTIAL,
        "without effect: nodes run one after another",
        read=lambda v: ExecutionMode(int(v)),
    ),
    "execution_order": Option(
        ExecutionOrder.DEFAULT, "without effect: results do not depend on it", read=lambda v: ExecutionOrder(int(v))
    ),
    "graph_optimization_level": Option(
        GraphOptimizationLevel.ORT_ENABLE_ALL,
        "without effect: a graph is rewritten and fused alike at every level",
        read=lambda v: GraphOptimizationLevel(int(v)),
    ),
    "enable_cpu_mem_arena": _switch(True, "without effect: memory is planned when a shape is first seen"),
    "enable_mem_pattern": _switch(True, "without effect: memory is planned when a shape is first seen"),
    "enable_mem_reuse": _switch(True, "without effect: memory is planned when a shape is first seen"),
    "use_per_session_threads": _switch(True, "without effect: threads are the process's"),
    "use_deterministic_compute": _switch(False, "without effect: results never depend on the number of threads"),
    "enable_profiling": Option(
        False, "there is no profile file; session.explain() lists every kernel", lambda on: not on, bool
    ),
    "profile_file_prefix": Option("onnxruntime_profile_", "without effect: see enable_profiling", read=str),
    "optimized_model_filepath": Option("", "the rewritten graph cannot be saved", lambda path: not path, str),
    "log_severity_level": Option(-1, _LOG, read=int),
    "log_verbosity_level": Option(0, "without effect: see log_severity_level", read=int),
    "logid": Option("", "without effect: see log_severity_level", read=str),
}

RUN_OPTIONS: Mapping[str, Option] = {
    "log_severity_level": Option(-1, "without effect: the session's counts", read=int),
    "log_verbosity_level": Option(0, "without effect: the session's counts", read=int),
    "logid": Option("", "without effect: the session's counts", read=str),
    "only_execute_path_to_fetches": _switch(False, "without effect: results do not depend on it"),
    "terminate": _switch(False, "a run that starts with it raises ExecutionError; one under way is not stopped"),
}


def _only(default: str, *values: str, meaning: str) -> Option:
    return Option(default, meaning, lambda value: value in values, str)


_NO_EFFECT = Option("", "without effect: results do not depend on it", read=str)

SESSION_CONFIG: Mapping[str, Option] = {
    "session.disable_cpu_ep_fallback": _only("0", "0", "1", meaning="1: a node that no provider can run is an error"),
    "session.load_model_format": _only("ONNX", "ONNX", meaning="a model is an ONNX file"),
    "session.set_denormal_as_zero": _only("0", "0", meaning="denormal numbers are kept"),
    "session.enable_gelu_approximation": _only("0", "0", meaning="Gelu is not approximated"),
    "session.intra_op.allow_spinning": _only("1", "0", "1", meaning="0: the cpu's threads, the process's, do not spin"),
    "session.force_spinning_stop": _only("0", "0", "1", meaning="1: as allow_spinning = 0"),
    **dict.fromkeys(
        (
            "session.disable_prepacking",
            "session.use_env_allocators",
            "session.use_device_allocator_for_initializers",
            "session.use_memory_mapped_ort_model",
            "session.inter_op.allow_spinning",
            "session.dynamic_block_base",
            "session.disable_double_qdq_remover",
            "session.disable_quant_qdq",
            "session.enable_quant_qdq_cleanup",
            "session.strict_shape_type_inference",
        ),
        _NO_EFFECT,
    ),
}

RUN_CONFIG: Mapping[str, Option] = {
    "memory.enable_memory_arena_shrinkage": _NO_EFFECT,
    "disable_synchronize_execution_providers": _only("0", "0", meaning="outputs are there when a run returns"),
}

REFUSED: Mapping[str, str] = {
    "add_initializer": "weights come from the model",
    "add_external_initializers": "weights come from the model",
    "add_external_initializers_from_files_in_memory": "weights come from the model's folder",
    "add_free_dimension_override_by_denotation": "dims have names alone: add_free_dimension_override_by_name",
    "register_custom_ops_library": "custom operators are model-local functions, or kernels of a backend",
    "add_provider_for_devices": "providers are named: providers=[...]",
    "set_provider_selection_policy": "providers are named: providers=[...]",
    "set_provider_selection_policy_delegate": "providers are named: providers=[...]",
    "set_load_cancellation_flag": "loading cannot be cancelled",
    "set_ep_context_data_read_func": "there are no precompiled contexts",
    "clear_ep_context_data_read_func": "there are no precompiled contexts",
    "add_active_adapter": "adapters are merged into the model before it is loaded",
}
"""Methods of onnxruntime's objects that would change results and that omniop does not have."""


class _Options:
    """Attributes by a table. Raises OptionError, which names the option, for what cannot be honoured."""

    _table: ClassVar[Mapping[str, Option]]
    _config_table: ClassVar[Mapping[str, Option]]

    def __init__(self) -> None:
        vars(self)["_values"] = {name: option.default for name, option in self._table.items()}
        vars(self)["_config"] = {}

    def __getattr__(self, name: str) -> Any:
        values: dict[str, Any] = vars(self).get("_values", {})
        if name in values:
            return values[name]
        self._refuse(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._table:
            self._refuse(name)
        self._values[name] = self._checked(name, self._table[name], value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._table})

    def _refuse(self, name: str) -> NoReturn:
        if name in REFUSED:
            raise OptionError(f"{type(self).__name__}.{name} is not to be had: {REFUSED[name]}")
        raise OptionError(f"{type(self).__name__} has no option {name!r}; it has: {', '.join(self._table)}")

    def _checked(self, name: str, option: Option, value: Any) -> Any:
        try:
            plain = option.read(value)
            taken = option.takes(plain)
        except (ValueError, TypeError):
            taken, plain = False, value
        if not taken:
            raise OptionError(f"{type(self).__name__}: {name} = {value!r} cannot be honoured: {option.meaning}")
        return plain

    def _add_config(self, key: str, value: str) -> None:
        option = self._config_table.get(key)
        if option is None:
            known = ", ".join(self._config_table)
            raise OptionError(f"{type(self).__name__}: there is no config entry {key!r} here; there is: {known}")
        self._config[key] = self._checked(key, option, value)

    def _get_config(self, key: str) -> str:
        """Raises RuntimeError for a key that was not added, as onnxruntime does."""
        if key not in self._config:
            raise RuntimeError(f"{type(self).__name__} does not have configuration with key: {key}")
        value: str = self._config[key]
        return value

    @classmethod
    def _like(cls, other: object, read_config: str) -> Self:
        """The options of onnxruntime's own object, each checked."""
        made = cls()
        if not all(hasattr(other, name) for name in ("log_severity_level", read_config)):
            raise OptionError(f"a {cls.__name__} of omniop or onnxruntime is needed, not a {type(other).__name__}")
        for name in cls._table:
            if hasattr(other, name):
                setattr(made, name, getattr(other, name))
        for key in cls._config_table:
            try:
                made._add_config(key, getattr(other, read_config)(key))
            except RuntimeError:  # it was not set
                continue
        return made


@dataclass(frozen=True)
class Settings:
    """What session options come to."""

    threads: int | None
    fallback: Fallback
    dims: Mapping[str, int] = field(default_factory=dict)
    """Sizes of named dims that feeds have to have."""
    providers: tuple[tuple[str, dict[str, str]], ...] = ()
    spins: bool = True
    """Whether threads may watch for work while there is none."""


class SessionOptions(_Options):
    """onnxruntime's SessionOptions: `SESSION_OPTIONS` and `SESSION_CONFIG` say what each option means here."""

    _table = SESSION_OPTIONS
    _config_table = SESSION_CONFIG

    def __init__(self) -> None:
        super().__init__()
        vars(self)["_dims"] = {}
        vars(self)["_providers"] = []

    def add_session_config_entry(self, key: str, value: str) -> None:
        self._add_config(key, value)

    def get_session_config_entry(self, key: str) -> str:
        return self._get_config(key)

    def add_free_dimension_override_by_name(self, name: str, value: int) -> None:
        """Feeds have to have this size where the model declares a dim of this name."""
        self._dims[name] = int(value)

    def add_provider(self, name: str, options: Mapping[str, str]) -> None:
        """A provider to use when the session is given none."""
        self._providers.append((name, dict(options)))

    def has_providers(self) -> bool:
        return bool(self._providers)

    @classmethod
    def settings(cls, given: object) -> Settings:
        """What ``given`` asks for: None, these options, or onnxruntime's own. Raises OptionError."""
        options = cls() if given is None else given if isinstance(given, cls) else cls._of_onnxruntime(given)
        level = options.log_severity_level if options.log_severity_level >= 0 else _default_severity
        refuses = options._config.get("session.disable_cpu_ep_fallback") == "1"
        fallback: Fallback = "error" if refuses else "silent" if level >= _SILENT else "warn"
        calm = ("session.intra_op.allow_spinning", "0"), ("session.force_spinning_stop", "1")
        return Settings(
            *(options.intra_op_num_threads or None, fallback, dict(options._dims), tuple(options._providers)),
            spins=not any(options._config.get(key) == value for key, value in calm),
        )

    @classmethod
    def _of_onnxruntime(cls, given: Any) -> SessionOptions:
        options = cls._like(given, "get_session_config_entry")
        if getattr(given, "has_providers", lambda: False)():
            raise OptionError("the providers of onnxruntime's own SessionOptions cannot be read: give providers=[...]")
        return options


class RunOptions(_Options):
    """onnxruntime's RunOptions: `RUN_OPTIONS` and `RUN_CONFIG` say what each option means here."""

    _table = RUN_OPTIONS
    _config_table = RUN_CONFIG

    def add_run_config_entry(self, key: str, value: str) -> None:
        self._add_config(key, value)

    def get_run_config_entry(self, key: str) -> str:
        return self._get_config(key)

    @classmethod
    def of(cls, given: object) -> RunOptions:
        """Raises OptionError."""
        if given is None or isinstance(given, cls):
            return given or cls()
        return cls._like(given, "get_run_config_entry")


# The process ----------------------------------------------------------------------------------------------------------

_SILENT = 3
"""onnxruntime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal."""
_default_severity = 2


def set_default_logger_severity(severity: int) -> None:
    """The level of sessions that set none: 3 and above silences the warning about fallbacks."""
    global _default_severity
    _default_severity = int(severity)


def disable_telemetry_events() -> None:
    """Nothing is ever sent."""


def enable_telemetry_events() -> None:
    """Nothing is ever sent."""
