"""The block of memory that threads meet in, a program's records, and the numbers of both's code."""

from __future__ import annotations

from enum import IntEnum

from omniop.backends.cpu.memory import ALIGNMENT

_LINE = 2 * ALIGNMENT // 8
"""Words of two cache lines, which processors fetch together."""

MAX_THREADS = 256
"""Of one job."""


class Word(IntEnum):
    """The block of memory, in words of eight bytes. What different threads write is on different lines."""

    EPOCH = 0
    """The latest job's number."""
    LEASE = _LINE
    """1 while a program has the workers."""
    SLEEPING = 2 * _LINE
    """How many workers sleep."""
    PENDING = 3 * _LINE
    """Tasks of the job that are not done."""
    STOP = 4 * _LINE
    """1 when workers are to return."""
    CALM = STOP + 1
    """1 where workers do not watch for work: they sleep as soon as there is none."""
    FUNCTION = 5 * _LINE
    BUFFERS = FUNCTION + 1
    CONTEXT = FUNCTION + 2
    POINTS = FUNCTION + 3
    CHUNK = FUNCTION + 4
    TASKS = FUNCTION + 5
    WANTS = FUNCTION + 6
    """Whether it is a job with scratch memory."""
    THREADS = 6 * _LINE
    """How many take part in the jobs of this lease, and their scratch memory: the leader's, the first worker's, and how
    far it is from one worker's to the next one's."""
    OWN = THREADS + 1
    SCRATCH = THREADS + 2
    STRIDE = THREADS + 3
    RANGES = 7 * _LINE
    """For each thread, on a line of its own: (the job's number << 32) + tasks that are left of its range."""
    ASLEEP = 8 * _LINE
    """For each thread, on the line behind that one: 1 while it sleeps."""


MEMBER = 2 * _LINE
"""Words from thread to thread."""
WORDS = Word.RANGES + MAX_THREADS * MEMBER
"""Of the block."""


class CallWord(IntEnum):
    """A call of a program."""

    C_RECORDS = 0
    C_COUNT = 1
    """How many records there are."""
    C_PLACES = 2
    """For each record's buffers, where among the addresses they are."""
    C_OWN = 3
    """The caller's scratch memory."""
    C_CONTROL = 4
    """The block of memory, and with how many threads to work; the workers' scratch memory."""
    C_THREADS = 5
    C_SCRATCH = 6
    C_STRIDE = 7
    C_ADDRESSES = 8
    """Of the run's buffers, from here on."""


class DirectWord(IntEnum):
    """A direct call: a program's, whose buffers are numpy's arrays."""

    D_CALL = 0
    """The program's call."""
    D_COUNT = 1
    """How many arrays there are."""
    D_TYPE = 2
    """What `numpy.ndarray` is to Python."""
    D_ARRAYS = 3
    """`ArrayWord` of each."""
    D_OBJECTS = 4
    """The arrays, as Python's objects, from here on."""


class ArrayWord(IntEnum):
    """An array of a direct call."""

    A_TARGET = 0
    """Where in the program's call its address belongs."""
    A_DTYPE = 1
    """As Python's object; 0 for an array that needs no check."""
    A_RANK = 2
    A_SHAPE = 3
    A_SIZE = 4


class NumpyByte(IntEnum):
    """Where an array has what, in bytes: ``PyArrayObject_fields`` of numpy/ndarraytypes.h, on 64 bits."""

    N_TYPE = 8
    N_DATA = 16
    N_RANK = 24
    N_SHAPE = 32
    N_DTYPE = 56
    N_FLAGS = 64


class RecordWord(IntEnum):
    """A record in a program."""

    R_FUNCTION = 0
    R_CONTEXT = 1
    R_POINTS = 2
    R_BUFFERS = 3
    """How many it has."""
    R_CHUNK = 4
    R_TASKS = 5
    R_WANTS = 6
    R_SIZE = 7


MAX_BUFFERS = 72
"""Of a record: `Caps.max_buffers` and what a recording adds."""

WANTED_FLAGS = 0x101
"""NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED."""

SETTINGS = {
    "N_WANTED": WANTED_FLAGS,
    "LOOK_TURNS": 64,  # from one look at the clock to the next
    "SPIN_NS": 50_000,  # from then on others may have the core
    "AWAKE_NS": 2_000_000,  # from then on a worker sleeps
    "WAKES": 4,  # workers that one thread wakes
    "MEMBER": MEMBER,
    "MOST_BUFFERS": MAX_BUFFERS,
    "MOST_THREADS": MAX_THREADS,
}
"""Times are in nanoseconds."""
