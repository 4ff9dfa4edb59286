// What keeps two runs the same to the instruction while instructions are counted, for this program
// and for the engines that it loads: they find these functions before the C library's.
//
// Time stands still: each reading of a clock is a microsecond after the last one, so that nothing
// that an engine does can depend on how fast an emulator is, and the counter is told of the reading.
// The core is always the first one, the only one that is emulated: an emulator would tell that of
// this machine, and ONNX Runtime asks for it before each matrix product (system call getcpu) and
// looks it up. Where nothing is counted, both are the C library's.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>

#include "engine.h"

// No kernel has a call of this number: it fails, and an instruction counter sees it pass.
enum { MARK_CALL = 0x6d64, MARK = 0, CLOCK = 1, START_S = 1500000000 };

bool counted;

static void *library_call;

__attribute__((constructor)) static void find_call(void) {
  library_call = dlsym(RTLD_NEXT, "syscall");
  if (!library_call) abort();
}

// Six arguments are the most that a call has; they pass in registers, as those after the dots do.
typedef long Call(long, long, long, long, long, long, long);
__attribute__((visibility("default"))) Call any_call __asm__("syscall");

long any_call(long number, long a, long b, long c, long d, long e, long f) {
  if (!counted || number != SYS_getcpu) return ((Call *)library_call)(number, a, b, c, d, e, f);
  *(unsigned *)a = 0;
  return 0;
}

static void tell(long place, long argument) {
  ((long (*)(long, long, long))library_call)(MARK_CALL, place, argument);
}

void mark(long number) {
  if (counted) tell(MARK, number);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  static long readings;
  if (counted) {
    tell(CLOCK, clock);
    ++readings;
    time->tv_sec = START_S + readings / 1000000;
    time->tv_nsec = readings % 1000000 * 1000;
    return 0;
  }
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  if (!real) abort();
  return real(clock, time);
}
