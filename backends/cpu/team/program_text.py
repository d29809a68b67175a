"""LLVM IR of the loop that runs a program's records.

``program`` takes a table, `words.CallWord`: one argument, since each costs Python more than it takes to read it here.
"""

from __future__ import annotations

PROGRAM = """
define void @program(ptr %call) {
entry:
  %buffers = alloca [MOST_BUFFERS x ptr], align 64
  %records = load ptr, ptr %call
  %count.at = getelementptr i64, ptr %call, i64 C_COUNT
  %count = load i64, ptr %count.at
  %places.at = getelementptr i64, ptr %call, i64 C_PLACES
  %places = load ptr, ptr %places.at
  %own.at = getelementptr i64, ptr %call, i64 C_OWN
  %own = load ptr, ptr %own.at
  %control.at = getelementptr i64, ptr %call, i64 C_CONTROL
  %control = load ptr, ptr %control.at
  %threads.at = getelementptr i64, ptr %call, i64 C_THREADS
  %threads = load i64, ptr %threads.at
  %scratch.at = getelementptr i64, ptr %call, i64 C_SCRATCH
  %scratch = load ptr, ptr %scratch.at
  %stride.at = getelementptr i64, ptr %call, i64 C_STRIDE
  %stride = load i64, ptr %stride.at
  %addresses = getelementptr i64, ptr %call, i64 C_ADDRESSES
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

; Runs a range of a record.
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

NOBODY = """
define internal i1 @lead(ptr %control, i64 %threads, ptr %own, ptr %scratch, i64 %stride) {
  ret i1 false
}

define internal void @share(ptr %control, i64 %threads, ptr %record, ptr %buffers) {
  ret void
}
"""
"""Where there are no workers: nobody leads."""
