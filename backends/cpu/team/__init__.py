"""The loop that runs programs, and the process's worker team, which helps with long records.

The workers are Python threads that stay in compiled code, without the GIL. One program at a time has the team; others
run on their own threads meanwhile.

A *job* is a record that is run by several threads. Its tasks are dealt to them in equal ranges, so that a thread meets
the part of the data that it had in the job before; one that has finished its own range takes from the others'. Whoever
is not running, because the system gave its core to somebody else, holds up no more than the task it is in.

The threads meet in one block of memory, `words.Word`. The leader (a thread that runs a program, and got the lease)
writes the job, a count of tasks left for each range, and then the job's number, which the workers watch. Counts are
tagged with that number: a worker that comes late finds another tag, and takes nothing of a job that it has not read.
The leader works as well, then waits until no task is pending.

A worker watches without a pause at first, then lets others have its core in between, and then sleeps. Those asleep are
woken when a program begins and with each job, some by the leader and the others by those.
"""
