// The least that can time an engine in C: no protocol, no marks, no clock of its own. Prints the
// median of N runs in nanoseconds.   _bare_loop MODEL RUNTIME LIBRARY N
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine.h"

noreturn void refuse(int exit_code, const char *hint, const char *format, ...) {
  va_list arguments;
  (void)hint;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  exit(exit_code);
}

void *open_library(const char *path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
void *find(void *library, const char *name) { return dlsym(library, name); }

static int by_size(const void *a, const void *b) {
  const long x = *(const long *)a, y = *(const long *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  const Engine *engine = strcmp(argv[2], "litert") ? &onnxruntime : &litert;
  const Request request = {.model = argv[1], .library = argv[3], .threads = 1};
  const int runs = atoi(argv[4]);
  Opened opened = {0};
  engine->open(&request, &opened);
  long *samples = calloc((size_t)runs, sizeof *samples);
  for (int i = 0; i < runs; ++i) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    engine->invoke();
    clock_gettime(CLOCK_MONOTONIC, &end);
    samples[i] = (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec;
  }
  qsort(samples, (size_t)runs, sizeof *samples, by_size);
  printf("%ld\n", samples[runs / 2]);
  fflush(stdout);
  _Exit(0);
}
