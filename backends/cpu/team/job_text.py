"""LLVM IR of jobs: how the leader gets the team and deals out tasks, and how threads take them."""

from __future__ import annotations

JOBS = """
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
"""
