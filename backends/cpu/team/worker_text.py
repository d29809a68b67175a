"""LLVM IR of a worker's life: watching, sleeping, and being woken."""

from __future__ import annotations

WORKERS = """
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i64 @syscall(i64, ...)

; Nanoseconds on a clock that nobody sets.
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
  %turn = phi i64 [ 0, %idle ], [ %turn.next, %pause ], [ 0, %counted ], [ 0, %yield ]
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
  %calm.at = getelementptr i64, ptr %control, i64 CALM
  %calm = load atomic i64, ptr %calm.at monotonic, align 8
  %tireless = icmp eq i64 %calm, 0
  br i1 %tireless, label %counted, label %sleep

counted:
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
