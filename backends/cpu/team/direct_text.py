"""LLVM IR that runs a program on numpy's arrays: it reads and checks them where they are, `words.ArrayWord`."""

from __future__ import annotations

DIRECT = """
; The number of the first array that is not as it should be, counted from 1; 0 when the program has run.
define i64 @direct(ptr %block) {
entry:
  %count.at = getelementptr i64, ptr %block, i64 D_COUNT
  %count = load i64, ptr %count.at
  %type.at = getelementptr i64, ptr %block, i64 D_TYPE
  %type = load ptr, ptr %type.at
  %arrays.at = getelementptr i64, ptr %block, i64 D_ARRAYS
  %arrays = load ptr, ptr %arrays.at
  %objects = getelementptr i64, ptr %block, i64 D_OBJECTS
  br label %next

next:
  %k = phi i64 [ 0, %entry ], [ %number, %take ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %one, label %run

one:
  %number = add i64 %k, 1
  %object.at = getelementptr ptr, ptr %objects, i64 %k
  %object = load ptr, ptr %object.at
  %first = mul i64 %k, A_SIZE
  %array = getelementptr i64, ptr %arrays, i64 %first
  %dtype.at = getelementptr i64, ptr %array, i64 A_DTYPE
  %dtype = load ptr, ptr %dtype.at
  %unchecked = icmp eq ptr %dtype, null
  br i1 %unchecked, label %take, label %check.type

check.type:
  %own.type.at = getelementptr i8, ptr %object, i64 N_TYPE
  %own.type = load ptr, ptr %own.type.at
  %is.array = icmp eq ptr %own.type, %type
  br i1 %is.array, label %check.dtype, label %other

check.dtype:
  %own.dtype.at = getelementptr i8, ptr %object, i64 N_DTYPE
  %own.dtype = load ptr, ptr %own.dtype.at
  %same.dtype = icmp eq ptr %own.dtype, %dtype
  %flags.at = getelementptr i8, ptr %object, i64 N_FLAGS
  %flags = load i32, ptr %flags.at
  %wanted.flags = and i32 %flags, N_WANTED
  %plain = icmp eq i32 %wanted.flags, N_WANTED
  %rank.at = getelementptr i64, ptr %array, i64 A_RANK
  %rank = load i64, ptr %rank.at
  %own.rank.at = getelementptr i8, ptr %object, i64 N_RANK
  %own.rank.int = load i32, ptr %own.rank.at
  %own.rank = sext i32 %own.rank.int to i64
  %same.rank = icmp eq i64 %own.rank, %rank
  %so.far = and i1 %same.dtype, %plain
  %fits = and i1 %so.far, %same.rank
  br i1 %fits, label %check.shape, label %other

check.shape:
  %shape.at = getelementptr i64, ptr %array, i64 A_SHAPE
  %shape = load ptr, ptr %shape.at
  %own.shape.at = getelementptr i8, ptr %object, i64 N_SHAPE
  %own.shape = load ptr, ptr %own.shape.at
  br label %dim

dim:
  %d = phi i64 [ 0, %check.shape ], [ %d.next, %extent ]
  %dims.left = icmp slt i64 %d, %rank
  br i1 %dims.left, label %extent, label %take

extent:
  %wanted.extent.at = getelementptr i64, ptr %shape, i64 %d
  %wanted.extent = load i64, ptr %wanted.extent.at
  %own.extent.at = getelementptr i64, ptr %own.shape, i64 %d
  %own.extent = load i64, ptr %own.extent.at
  %d.next = add i64 %d, 1
  %same.extent = icmp eq i64 %own.extent, %wanted.extent
  br i1 %same.extent, label %dim, label %other

take:
  %data.at = getelementptr i8, ptr %object, i64 N_DATA
  %data = load i64, ptr %data.at
  %target.at = getelementptr i64, ptr %array, i64 A_TARGET
  %target = load ptr, ptr %target.at
  store i64 %data, ptr %target
  br label %next

run:
  %call.at = getelementptr i64, ptr %block, i64 D_CALL
  %call = load ptr, ptr %call.at
  call void @program(ptr %call)
  ret i64 0

other:
  ret i64 %number
}
"""
