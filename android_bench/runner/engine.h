// What main.c asks of an inference engine. One file per engine: litert.c, onnxruntime.c.
#ifndef MOBILEDEPLOY_ENGINE_H
#define MOBILEDEPLOY_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdnoreturn.h>

#define MAX_RANK 8
#define MAX_ENDS 32

// The exit codes of the command line (docs/exit-codes.md).
enum { USAGE = 2, DEVICE = 5, MISSING = 6, INPUT = 7 };

typedef struct {
  const char *model;     // the model file
  const char *library;   // the runtime's shared library
  const char *delegate;  // NULL: the engine's own default
  const char *profile;   // file for the engine's profile of operators; NULL: no profile is taken
  int threads;
} Request;

typedef struct {
  const char *name;
  const char *dtype;  // as numpy names it
  int rank;
  int64_t shape[MAX_RANK];
  size_t bytes;
} Tensor;

typedef struct {
  const char *version;   // "" where the library does not tell
  const char *delegate;  // what runs the model now
  // What of Ready says it: the number of nodes, and the fields behind it; "null" where the library
  // does not tell.
  const char *delegated;
  int total_nodes;
  // With --cold, how long the steps of opening it took; -1 for one that is a part of the next.
  int64_t library_ns, load_ns, prepare_ns;
  int input_count, output_count;
  Tensor inputs[MAX_ENDS], outputs[MAX_ENDS];
} Opened;

typedef struct {
  const char *name;     // what --runtime takes
  const char *library;  // where the library is looked for without --library
  void (*open)(const Request *, Opened *);
  void (*load)(int input, const void *bytes, size_t size);
  void (*invoke)(void);
  void (*fetch)(int output, void *bytes, size_t size);  // an output of the last run
  void (*close)(void);                      // writes the profile, where one was asked for
} Engine;

extern const Engine litert, onnxruntime;

// Whether instructions are counted: then nothing may differ from run to run (counted.c).
extern bool counted;
// Whether the steps of opening a model are timed: then nothing else is done before them.
extern bool cold;
// Nanoseconds since the last call; without --cold no clock is read, which a counter would see.
int64_t lap_ns(void);
// Tells a counter that this place was reached; nothing where none counts.
void mark(long number);

// Standard output for events only (main.c), and the begin and the end of an event.
extern FILE *events;
void begin_event(const char *kind);
void end_event(void);

// Answers the raw inputs that come on standard input, until it ends (answer.c).
void answer(const Engine *engine, const Opened *opened);
// Says the raw outputs of the last run as a RawAnswer event.
void say_answer(const Engine *engine, const Opened *opened, long index);

// Says a Failure event and ends the process with its exit code.
noreturn void refuse(int exit_code, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// The number of inputs or outputs; a refusal for none, or for more than there is room for.
int end_count(size_t count, const char *what, const char *model);

// What `work` says on `events`, in a process of its own, so that memory and times of this one stay
// what they are; NULL where it does not get to its end: then this process says why.
const char *apart(void (*work)(const Request *), const Request *request);
// Text as JSON on `events`.
void say_text(const char *text);

// The library, or a refusal.
void *open_library(const char *path);
// A function of it, or a refusal.
void *find(void *library, const char *name);

#endif
