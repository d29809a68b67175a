"""LLVM IR of the loop that runs programs, and of the workers that help it.

A *job* is a record that is run by several threads. Its tasks are dealt to them in equal ranges, so that a thread meets
the part of the data that it had in the job before; one that has finished its own range takes from the others'. Whoever
is not running, because the system gave its core to somebody else, holds up no more than the task it is in.

The threads meet in one block of memory, `Word`. The leader (a thread that runs a program, and got the lease) writes
the job, a count of tasks left for each range, and then the job's number, which the workers watch. Counts are tagged
with that number: a worker that comes late finds another tag, and takes nothing of a job that it has not read. The
leader works as well, then waits until no task is pending.

A worker watches without a pause at first, then lets others have its core in between, and then sleeps. Those asleep are
woken when a program begins and with each job, some by the leader and the others by those.
"""

from __future__ import annotations

import platform
import re
import sys
from enum import IntEnum

from omniop.backends.codegen.llvm_ir import Module
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


_MEMBER = 2 * _LINE
"""Words from thread to thread."""
WORDS = Word.RANGES + MAX_THREADS * _MEMBER
"""Of the block."""


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

_SETTINGS = {
    "LOOK_TURNS": 64,  # from one look at the clock to the next
    "SPIN_NS": 50_000,  # from then on others may have the core
    "AWAKE_NS": 2_000_000,  # from then on a worker sleeps
    "WAKES": 4,  # workers that one thread wakes
    "MEMBER": _MEMBER,
    "MOST_BUFFERS": MAX_BUFFERS,
    "MOST_THREADS": MAX_THREADS,
}

_PAUSES = {"x86_64": "@llvm.x86.sse2.pause()", "aarch64": "@llvm.aarch64.isb(i32 15)"}
"""What a loop that watches does in between, by machine."""

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
"""The number of Linux's system call, by machine."""


def available() -> bool:
    """Whether workers can sleep here."""
    return sys.platform == "linux" and platform.machine() in _FUTEX


def print_team(module: Module, machine: str) -> None:
    """Adds ``program``, and where workers can sleep ``worker`` and ``stop``."""
    pause = _PAUSES.get(machine)
    names: dict[str, object] = {**{w.name: int(w) for w in (*Word, *RecordWord)}, **_SETTINGS}
    names |= {"PAUSE": f"call void {pause}" if pause else "", "FUTEX": _FUTEX.get(machine, 0)}
    parts = [_PROGRAM, _WORKERS if available() else _NOBODY]
    if pause:
        parts.append(f"declare void {pause.replace('i32 15', 'i32')}")
    module.functions["program"] = re.sub(r"\b[A-Z_]{3,}\b", lambda found: str(names[found[0]]), "".join(parts))


# program: {records, how many, places}; addresses: of the run's buffers; own: the caller's scratch memory; control: the
# block of memory, for more than one thread; scratch, stride: the workers' scratch memory.
_PROGRAM = """
define void @program(ptr %program, ptr %addresses, ptr %own, ptr %control, i64 %threads, ptr %scratch, i64 %stride) {
entry:
  %buffers = alloca [MOST_BUFFERS x ptr], align 64
  %records = load ptr, ptr %program
  %count.at = getelementptr i64, ptr %program, i64 1
  %count = load i64, ptr %count.at
  %places.at = getelementptr i64, ptr %program, i64 2
  %places = load ptr, ptr %places.at
  %leads = call i1 @lead(ptr %control, i64 %threads, ptr %own, ptr %scratch, i64 %stride)
  br label %launch

launch:
  %k = phi i64 [ 0, %entry ], [ %next, %done ]
  %at = phi ptr [ %places, %entry ], [ %rest, %done ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %read, label %end

read:
  %offset = mul i64 %k, R_SIZE
  %record = getelementptr i64, ptr %records, i64 %offset
  %used.at = getelementptr i64, ptr %record, i64 R_BUFFERS
  %used = load i64, ptr %used.at
  br label %gather

gather:
  %b = phi i64 [ 0, %read ], [ %b.next, %one ]
  %left = icmp slt i64 %b, %used
  br i1 %left, label %one, label %run

one:
  %place.at = getelementptr i64, ptr %at, i64 %b
  %place = load i64, ptr %place.at
  %address.at = getelementptr ptr, ptr %addresses, i64 %place
  %address = load ptr, ptr %address.at
  %slot = getelementptr ptr, ptr %buffers, i64 %b
  store ptr %address, ptr %slot
  %b.next = add i64 %b, 1
  br label %gather

run:
  %tasks.at = getelementptr i64, ptr %record, i64 R_TASKS
  %tasks = load i64, ptr %tasks.at
  %several = icmp sgt i64 %tasks, 1
  %together = and i1 %several, %leads
  br i1 %together, label %share, label %alone

share:
  call void @share(ptr %control, i64 %threads, ptr %record, ptr %buffers)
  br label %done

alone:
  %function = load ptr, ptr %record
  %context.at = getelementptr i64, ptr %record, i64 R_CONTEXT
  %context = load ptr, ptr %context.at
  %points.at = getelementptr i64, ptr %record, i64 R_POINTS
  %points = load i64, ptr %points.at
  %wants.at = getelementptr i64, ptr %record, i64 R_WANTS
  %wants = load i64, ptr %wants.at
  call void @call(ptr %function, ptr %buffers, ptr %context, i64 0, i64 %points, i64 %wants, ptr %own)
  br label %done

done:
  %next = add i64 %k, 1
  %rest = getelementptr i64, ptr %at, i64 %used
  br label %launch

end:
  br i1 %leads, label %leave, label %out

leave:
  %lease = getelementptr i64, ptr %control, i64 LEASE
  store atomic i64 0, ptr %lease release, align 8
  br label %out

out:
  ret void
}

define internal void @call(ptr %function, ptr %buffers, ptr %context, i64 %begin, i64 %end, i64 %wants, ptr %scratch) {
entry:
  %plain = icmp eq i64 %wants, 0
  br i1 %plain, label %four, label %five

four:
  %done.four = call i64 %function(ptr %buffers, ptr %context, i64 %begin, i64 %end)
  ret void

five:
  %done.five = call i64 %function(ptr %buffers, ptr %context, i64 %begin, i64 %end, ptr %scratch)
  ret void
}
"""

_NOBODY = """
define internal i1 @lead(ptr %control, i64 %threads, ptr %own, ptr %scratch, i64 %stride) {
  ret i1 false
}

define internal void @share(ptr %control, i64 %threads, ptr %record, ptr %buffers) {
  ret void
}
"""

_WORKERS = """
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i64 @syscall(i64, ...)

define internal i64 @now() {
  %time = alloca [2 x i64], align 8
  %got = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %rest
  ret i64 %sum
}

; Whether this thread has the workers from here on, of which it wakes some.
define internal i1 @lead(ptr %control, i64 %threads, ptr %own, ptr %scratch, i64 %stride) {
entry:
  %several = icmp sgt i64 %threads, 1
  br i1 %several, label %ask, label %no

ask:
  %lease = getelementptr i64, ptr %control, i64 LEASE
  %pair = cmpxchg ptr %lease, i64 0, i64 1 acquire monotonic, align 8
  %got = extractvalue { i64, i1 } %pair, 1
  br i1 %got, label %begin, label %no

begin:
  %threads.at = getelementptr i64, ptr %control, i64 THREADS
  store atomic i64 %threads, ptr %threads.at monotonic, align 8
  %own.at = getelementptr i64, ptr %control, i64 OWN
  store ptr %own, ptr %own.at
  %scratch.at = getelementptr i64, ptr %control, i64 SCRATCH
  store ptr %scratch, ptr %scratch.at
  %stride.at = getelementptr i64, ptr %control, i64 STRIDE
  store i64 %stride, ptr %stride.at
  call void @rouse(ptr %control, i64 %threads)
  ret i1 true

no:
  ret i1 false
}

; Runs a record together with the workers.
define internal void @share(ptr %control, i64 %threads, ptr %record, ptr %buffers) {
entry:
  %function = load ptr, ptr %record
  %context.from = getelementptr i64, ptr %record, i64 R_CONTEXT
  %context = load ptr, ptr %context.from
  %points.from = getelementptr i64, ptr %record, i64 R_POINTS
  %points = load i64, ptr %points.from
  %chunk.from = getelementptr i64, ptr %record, i64 R_CHUNK
  %chunk = load i64, ptr %chunk.from
  %tasks.from = getelementptr i64, ptr %record, i64 R_TASKS
  %tasks = load i64, ptr %tasks.from
  %wants.from = getelementptr i64, ptr %record, i64 R_WANTS
  %wants = load i64, ptr %wants.from
  %function.at = getelementptr i64, ptr %control, i64 FUNCTION
  store ptr %function, ptr %function.at
  %buffers.at = getelementptr i64, ptr %control, i64 BUFFERS
  store ptr %buffers, ptr %buffers.at
  %context.at = getelementptr i64, ptr %control, i64 CONTEXT
  store ptr %context, ptr %context.at
  %points.at = getelementptr i64, ptr %control, i64 POINTS
  store i64 %points, ptr %points.at
  %chunk.at = getelementptr i64, ptr %control, i64 CHUNK
  store i64 %chunk, ptr %chunk.at
  %tasks.at = getelementptr i64, ptr %control, i64 TASKS
  store i64 %tasks, ptr %tasks.at
  %wants.at = getelementptr i64, ptr %control, i64 WANTS
  store i64 %wants, ptr %wants.at
  %pending = getelementptr i64, ptr %control, i64 PENDING
  store atomic i64 %tasks, ptr %pending monotonic, align 8
  %last = load atomic i64, ptr %control monotonic, align 8
  %job = add i64 %last, 1
  %tag = shl i64 %job, 32
  br label %deal

deal:
  %k = phi i64 [ 0, %entry ], [ %k.next, %deal ]
  %first = phi i64 [ 0, %entry ], [ %end, %deal ]
  %k.next = add i64 %k, 1
  %upto = mul i64 %k.next, %tasks
  %end = udiv i64 %upto, %threads
  %left = sub i64 %end, %first
  %count = or i64 %tag, %left
  %place = mul i64 %k, MEMBER
  %place.range = add i64 %place, RANGES
  %range = getelementptr i64, ptr %control, i64 %place.range
  store atomic i64 %count, ptr %range release, align 8
  %more = icmp slt i64 %k.next, %threads
  br i1 %more, label %deal, label %publish

publish:
  %old = atomicrmw xchg ptr %control, i64 %job seq_cst, align 8
  call void @rouse(ptr %control, i64 %threads)
  %helped = call i1 @help(ptr %control, i64 0, i64 %job)
  %since = call i64 @now()
  br label %watch

watch:
  %turn = phi i64 [ 0, %publish ], [ %turn.next, %pause ], [ 0, %clock ], [ 0, %yield ]
  %still = load atomic i64, ptr %pending acquire, align 8
  %over = icmp eq i64 %still, 0
  br i1 %over, label %out, label %pause

pause:
  PAUSE
  %turn.next = add i64 %turn, 1
  %look = icmp eq i64 %turn.next, LOOK_TURNS
  br i1 %look, label %clock, label %watch

clock:
  %time = call i64 @now()
  %waited = sub i64 %time, %since
  %long = icmp ugt i64 %waited, SPIN_NS
  br i1 %long, label %yield, label %watch

yield:
  %yielded = call i32 @sched_yield()
  br label %watch

out:
  ret void
}

; Takes tasks of a job until none is left; gives whether this thread is one of the job's.
define internal i1 @help(ptr %control, i64 %number, i64 %job) {
entry:
  %threads.at = getelementptr i64, ptr %control, i64 THREADS
  %threads = load atomic i64, ptr %threads.at monotonic, align 8
  %pending = getelementptr i64, ptr %control, i64 PENDING
  %tag = shl i64 %job, 32
  %called = icmp slt i64 %number, %threads
  br i1 %called, label %range, label %uncalled

range:
  %k = phi i64 [ 0, %entry ], [ %k.next, %empty ]
  %ahead = add i64 %number, %k
  %over = icmp sge i64 %ahead, %threads
  %wrapped = sub i64 %ahead, %threads
  %member = select i1 %over, i64 %wrapped, i64 %ahead
  %place = mul i64 %member, MEMBER
  %place.range = add i64 %place, RANGES
  %word = getelementptr i64, ptr %control, i64 %place.range
  br label %claim

claim:
  %found = load atomic i64, ptr %word monotonic, align 8
  %left = xor i64 %found, %tag
  %ours = icmp ult i64 %left, 4294967296
  br i1 %ours, label %count, label %done

count:
  %none = icmp eq i64 %left, 0
  br i1 %none, label %empty, label %take

take:
  %fewer = sub i64 %found, 1
  %pair = cmpxchg ptr %word, i64 %found, i64 %fewer acquire monotonic, align 8
  %got = extractvalue { i64, i1 } %pair, 1
  br i1 %got, label %run, label %claim

run:
  call void @task(ptr %control, i64 %number, i64 %member, i64 %left)
  %before = atomicrmw sub ptr %pending, i64 1 release, align 8
  br label %claim

empty:
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %threads
  br i1 %more, label %range, label %done

done:
  ret i1 true

uncalled:
  ret i1 false
}

; The task of a member's range at which so many are left.
define internal void @task(ptr %control, i64 %number, i64 %member, i64 %left) {
entry:
  %function.at = getelementptr i64, ptr %control, i64 FUNCTION
  %function = load ptr, ptr %function.at
  %buffers.at = getelementptr i64, ptr %control, i64 BUFFERS
  %buffers = load ptr, ptr %buffers.at
  %context.at = getelementptr i64, ptr %control, i64 CONTEXT
  %context = load ptr, ptr %context.at
  %points.at = getelementptr i64, ptr %control, i64 POINTS
  %points = load i64, ptr %points.at
  %chunk.at = getelementptr i64, ptr %control, i64 CHUNK
  %chunk = load i64, ptr %chunk.at
  %tasks.at = getelementptr i64, ptr %control, i64 TASKS
  %tasks = load i64, ptr %tasks.at
  %wants.at = getelementptr i64, ptr %control, i64 WANTS
  %wants = load i64, ptr %wants.at
  %threads.at = getelementptr i64, ptr %control, i64 THREADS
  %threads = load atomic i64, ptr %threads.at monotonic, align 8
  %own.at = getelementptr i64, ptr %control, i64 OWN
  %own = load ptr, ptr %own.at
  %scratch.at = getelementptr i64, ptr %control, i64 SCRATCH
  %scratch = load ptr, ptr %scratch.at
  %stride.at = getelementptr i64, ptr %control, i64 STRIDE
  %stride = load i64, ptr %stride.at
  %following = add i64 %member, 1
  %upto = mul i64 %following, %tasks
  %end = udiv i64 %upto, %threads
  %index = sub i64 %end, %left
  %begin = mul i64 %index, %chunk
  %stop = add i64 %begin, %chunk
  %short = icmp slt i64 %stop, %points
  %until = select i1 %short, i64 %stop, i64 %points
  %leads = icmp eq i64 %number, 0
  %worker = sub i64 %number, 1
  %offset = mul i64 %worker, %stride
  %theirs = getelementptr i8, ptr %scratch, i64 %offset
  %memory = select i1 %leads, ptr %own, ptr %theirs
  call void @call(ptr %function, ptr %buffers, ptr %context, i64 %begin, i64 %until, i64 %wants, ptr %memory)
  ret void
}

; Wakes some of those that sleep, who wake others.
define internal void @rouse(ptr %control, i64 %threads) {
entry:
  %sleeping = getelementptr i64, ptr %control, i64 SLEEPING
  %count = load atomic i64, ptr %sleeping seq_cst, align 8
  %awake = icmp eq i64 %count, 0
  br i1 %awake, label %out, label %next

next:
  %k = phi i64 [ 0, %entry ], [ %number, %look ], [ %number, %try ], [ %number, %wake ]
  %woken = phi i64 [ 0, %entry ], [ %woken, %look ], [ %woken, %try ], [ %woken.more, %wake ]
  %number = add i64 %k, 1
  %more = icmp slt i64 %number, %threads
  %few = icmp slt i64 %woken, WAKES
  %go = and i1 %more, %few
  br i1 %go, label %look, label %out

look:
  %place = mul i64 %number, MEMBER
  %place.asleep = add i64 %place, ASLEEP
  %asleep = getelementptr i64, ptr %control, i64 %place.asleep
  %sleeps = load atomic i32, ptr %asleep seq_cst, align 4
  %found = icmp ne i32 %sleeps, 0
  br i1 %found, label %try, label %next

try:
  %was = atomicrmw xchg ptr %asleep, i32 0 seq_cst, align 4
  %mine = icmp ne i32 %was, 0
  br i1 %mine, label %wake, label %next

wake:
  %fewer = atomicrmw sub ptr %sleeping, i64 1 seq_cst, align 8
  %done = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %asleep, i32 129, i32 1, ptr null, ptr null, i32 0)
  %woken.more = add i64 %woken, 1
  br label %next

out:
  ret void
}

; Returns when woken, or at once when there is something to do.
define internal void @sleep(ptr %control, i64 %number, i64 %seen) {
entry:
  %sleeping = getelementptr i64, ptr %control, i64 SLEEPING
  %stop = getelementptr i64, ptr %control, i64 STOP
  %place = mul i64 %number, MEMBER
  %place.asleep = add i64 %place, ASLEEP
  %asleep = getelementptr i64, ptr %control, i64 %place.asleep
  %one.more = atomicrmw add ptr %sleeping, i64 1 seq_cst, align 8
  %before = atomicrmw xchg ptr %asleep, i32 1 seq_cst, align 4
  %job = load atomic i64, ptr %control seq_cst, align 8
  %new = icmp ne i64 %job, %seen
  %ending = load atomic i64, ptr %stop seq_cst, align 8
  %ends = icmp ne i64 %ending, 0
  %awake = or i1 %new, %ends
  br i1 %awake, label %rise, label %wait

wait:
  %waited = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %asleep, i32 128, i32 1, ptr null, ptr null, i32 0)
  %still = load atomic i32, ptr %asleep acquire, align 4
  %again = icmp ne i32 %still, 0
  br i1 %again, label %wait, label %others

others:
  %threads.at = getelementptr i64, ptr %control, i64 THREADS
  %threads = load atomic i64, ptr %threads.at monotonic, align 8
  call void @rouse(ptr %control, i64 %threads)
  ret void

rise:
  %was = atomicrmw xchg ptr %asleep, i32 0 seq_cst, align 4
  %mine = icmp ne i32 %was, 0
  br i1 %mine, label %count, label %out

count:
  %fewer = atomicrmw sub ptr %sleeping, i64 1 seq_cst, align 8
  br label %out

out:
  ret void
}

; A worker's life; threads are numbered from 1, the leader is 0.
define void @worker(ptr %control, i64 %number) {
entry:
  %stop = getelementptr i64, ptr %control, i64 STOP
  %born = call i64 @now()
  br label %idle

idle:
  %seen = phi i64 [ 0, %entry ], [ %job, %work ], [ %seen, %sleep ]
  %since = phi i64 [ %born, %entry ], [ %after, %work ], [ %woken, %sleep ]
  br label %watch

watch:
  %turn = phi i64 [ 0, %idle ], [ %turn.next, %pause ], [ 0, %early ], [ 0, %yield ]
  %job = load atomic i64, ptr %control acquire, align 8
  %same = icmp eq i64 %job, %seen
  br i1 %same, label %pause, label %work

pause:
  PAUSE
  %turn.next = add i64 %turn, 1
  %look = icmp eq i64 %turn.next, LOOK_TURNS
  br i1 %look, label %clock, label %watch

clock:
  %ending = load atomic i64, ptr %stop acquire, align 8
  %ends = icmp ne i64 %ending, 0
  br i1 %ends, label %end, label %early

early:
  %time = call i64 @now()
  %waited = sub i64 %time, %since
  %short = icmp ult i64 %waited, SPIN_NS
  br i1 %short, label %watch, label %late

late:
  %awake = icmp ult i64 %waited, AWAKE_NS
  br i1 %awake, label %yield, label %sleep

yield:
  %yielded = call i32 @sched_yield()
  br label %watch

sleep:
  call void @sleep(ptr %control, i64 %number, i64 %seen)
  %woken = call i64 @now()
  br label %idle

work:
  %called = call i1 @help(ptr %control, i64 %number, i64 %job)
  %done = call i64 @now()
  %after = select i1 %called, i64 %done, i64 %since
  br label %idle

end:
  ret void
}

; Tells all workers to return.
define void @stop(ptr %control) {
entry:
  %stop = getelementptr i64, ptr %control, i64 STOP
  %before = atomicrmw xchg ptr %stop, i64 1 seq_cst, align 8
  br label %next

next:
  %number = phi i64 [ 0, %entry ], [ %following, %next ]
  %place = mul i64 %number, MEMBER
  %place.asleep = add i64 %place, ASLEEP
  %asleep = getelementptr i64, ptr %control, i64 %place.asleep
  %was = atomicrmw xchg ptr %asleep, i32 0 seq_cst, align 4
  %done = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %asleep, i32 129, i32 1, ptr null, ptr null, i32 0)
  %following = add i64 %number, 1
  %more = icmp slt i64 %following, MOST_THREADS
  br i1 %more, label %next, label %end

end:
  ret void
}
"""
