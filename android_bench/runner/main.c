// The native runner: one engine, one model, JSON lines; android_bench/PROTOCOL.md says all of it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

enum { PROTOCOL = 2, BLOCK_NS = 100000000, NOISE_SEED = 20170417 };

static const Engine *const engines[] = {&litert, &onnxruntime};
FILE *events;  // standard output, which the engine's chatter cannot reach
bool cold;

void say_text(const char *text) {
  fputc('"', events);
  for (const unsigned char *c = (const unsigned char *)text; *c; ++c) {
    if (*c == '"' || *c == '\\') fprintf(events, "\\%c", *c);
    else if (*c == '\n' || *c == '\t' || *c == '\r') fputc(' ', events);
    else if (*c < 0x20) fprintf(events, "\\u%04x", *c);
    else fputc(*c, events);
  }
  fputc('"', events);
}

void begin_event(const char *kind) {
  fprintf(events, "{\"schema_version\":2,\"record\":\"%s\"", kind);
}

void end_event(void) {
  fputs("}\n", events);
  if (fflush(events)) _exit(1);  // nobody listens any more
}

noreturn void refuse(int exit_code, const char *hint, const char *format, ...) {
  char message[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  begin_event("Failure");
  fprintf(events, ",\"exit_code\":%d,\"message\":", exit_code);
  say_text(message);
  fputs(",\"hint\":", events);
  say_text(hint);
  end_event();
  _exit(exit_code);
}

int end_count(size_t count, const char *what, const char *model) {
  if (count < 1 || count > MAX_ENDS)
    refuse(INPUT, "", "%s has %zu %s, 1 to %d can be run", model, count, what, MAX_ENDS);
  return (int)count;
}

const char *apart(void (*work)(const Request *), const Request *request) {
  int ends[2], status;
  if (pipe(ends)) return NULL;
  const pid_t parent = getpid(), child = fork();
  if (child == 0) {
    // It may not outlive this process, whose standard output it holds open.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) _exit(1);
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 1);
    dup2(nowhere, 2);
    events = fdopen(ends[1], "w");
    work(request);
    _exit(fflush(events) != 0);
  }
  close(ends[1]);
  FILE *reader = fdopen(ends[0], "r");
  char *text = NULL;
  size_t size = 0;
  const bool read = reader && getdelim(&text, &size, 0, reader) > 0;
  if (reader) fclose(reader);
  if (child < 0 || waitpid(child, &status, 0) != child || status || !read) return NULL;
  return text;
}

void *open_library(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) refuse(MISSING, "give its place with --library", "%s", dlerror());
  return library;
}

void *find(void *library, const char *name) {
  void *function = dlsym(library, name);
  if (!function) refuse(MISSING, "this runner needs another version of it", "%s", dlerror());
  return function;
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t lap_ns(void) {
  static int64_t last;
  if (!cold) return 0;
  const int64_t before = last;
  last = now_ns();
  return last - before;
}

static long peak_rss_bytes(void) {
  FILE *status = fopen("/proc/self/status", "r");
  char line[256];
  long kilobytes = 0;
  while (status && fgets(line, sizeof line, status))
    if (sscanf(line, "VmHWM: %ld kB", &kilobytes) == 1) break;
  if (status) fclose(status);
  return kilobytes * 1024;
}

// What of the CPU decides which kernels an engine takes: what the system told this process.
static void describe_cpu(char *text, size_t size) {
#ifdef __aarch64__
  static const struct { const char *name; unsigned word, bit; } features[] = {
      {"asimd", 0, 1}, {"fphp", 0, 9}, {"asimdhp", 0, 10}, {"asimddp", 0, 20}, {"sve", 0, 22},
      {"sve2", 1, 1}, {"i8mm", 1, 13}, {"bf16", 1, 14}, {"sme", 1, 23},
  };
  const unsigned long words[] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
  size_t used = (size_t)snprintf(text, size, "aarch64");
  for (size_t i = 0; i < sizeof features / sizeof *features; ++i)
    if (words[features[i].word] >> features[i].bit & 1)
      used += (size_t)snprintf(text + used, size - used, " %s", features[i].name);
#else
  snprintf(text, size, "x86_64");
#endif
}

static void say_tensor(const Tensor *tensor) {
  fputs("{\"name\":", events);
  say_text(tensor->name);
  fputs(",\"shape\":[", events);
  for (int i = 0; i < tensor->rank; ++i)
    fprintf(events, "%s%lld", i ? "," : "", (long long)tensor->shape[i]);
  // The engines' C APIs are not asked for scales: the caller has the artifact's record.
  fprintf(events, "],\"dtype\":\"%s\",\"scale\":[],\"zero_point\":[],\"axis\":null,\"constant\":false}",
          tensor->dtype);
}

static void say_tensors(const char *field, const Tensor *tensors, int count) {
  fprintf(events, ",\"%s\":[", field);
  for (int i = 0; i < count; ++i) {
    if (i) fputc(',', events);
    say_tensor(&tensors[i]);
  }
  fputc(']', events);
}

static void say_count(const char *field, int count) {
  if (count < 0) fprintf(events, ",\"%s\":null", field);
  else fprintf(events, ",\"%s\":%d", field, count);
}

static void say_ready(const Engine *engine, const Opened *opened, int threads,
                      const char *version) {
  char cpu[256];
  describe_cpu(cpu, sizeof cpu);
  begin_event("Ready");
  fprintf(events, ",\"protocol\":%d,\"runtime\":\"%s\",\"version\":", PROTOCOL, engine->name);
  say_text(*opened->version ? opened->version : version);
  say_tensors("inputs", opened->inputs, opened->input_count);
  say_tensors("outputs", opened->outputs, opened->output_count);
  fprintf(events, ",\"delegate\":\"%s\"", opened->delegate);
  fprintf(events, ",\"delegated_nodes\":%s", opened->delegated);
  say_count("total_nodes", opened->total_nodes);
  fprintf(events, ",\"threads\":%d,\"cpu\":\"%s\"", threads, cpu);
  end_event();
}

static void say_step(const char *field, int64_t ns) {
  if (ns < 0) fprintf(events, ",\"%s\":null", field);
  else fprintf(events, ",\"%s\":%lld", field, (long long)ns);
}

static void say_loaded(const Opened *opened) {
  begin_event("Loaded");
  say_step("library_ns", opened->library_ns);
  say_step("load_ns", opened->load_ns);
  say_step("prepare_ns", opened->prepare_ns);
  end_event();
}

static void say_times(const int64_t *samples, size_t count) {
  if (!count) return;
  begin_event("Timed");
  for (size_t i = 0; i < count; ++i)
    fprintf(events, "%s%lld", i ? "," : ",\"samples_ns\":[", (long long)samples[i]);
  fputc(']', events);
  end_event();
}

// Set when standard input has ended: whatever comes on it before is not for us. A thread of its own
// waits for that, so that no system call comes between two runs.
static atomic_bool asked_to_stop;

static void *wait_for_end(void *unused) {
  char ignored[256];
  while (read(0, ignored, sizeof ignored) > 0) {
  }
  asked_to_stop = true;
  return unused;
}

// A file of the kernel: how long a core ran at each clock, in ticks. On one line, "KHZ:TICKS ...".
static void read_clocks(const char *path, char *text, size_t size) {
  FILE *file = path ? fopen(path, "r") : NULL;
  const size_t length = file ? fread(text, 1, size - 1, file) : 0;
  if (file) fclose(file);
  text[length] = 0;
  for (char *c = text; *c; ++c) *c = *c == ' ' ? ':' : *c == '\n' ? ' ' : *c;
}

static void bench(const Engine *engine, long max_runs) {
  static int64_t samples[4096];
  const size_t room = sizeof samples / sizeof *samples;
  size_t count = 0;
  pthread_t reader;
  // A counter sees one thread only, and what is counted has its number of runs.
  if (!counted && pthread_create(&reader, NULL, wait_for_end, NULL))
    refuse(DEVICE, "", "no thread could be started");
  int64_t block = now_ns() + BLOCK_NS;
  for (long run = 0; run != max_runs && !asked_to_stop; ++run) {
    mark(2 * run);
    const int64_t begin = now_ns();
    engine->invoke();
    const int64_t end = now_ns();
    mark(2 * run + 1);
    samples[count++] = end - begin;
    if (end >= block || count == room) {
      say_times(samples, count);
      count = 0;
      block = now_ns() + BLOCK_NS;
    }
  }
  say_times(samples, count);
}

// Zeros for a type whose numbers are indices more often than values.
static void fill_with_noise(const Tensor *tensor, uint64_t *state, unsigned char *bytes) {
  const bool floats = strcmp(tensor->dtype, "float32") == 0;
  memset(bytes, 0, tensor->bytes);
  if (!floats && !strstr("uint8 int8 int16", tensor->dtype)) return;
  for (size_t i = 0; i < tensor->bytes; i += floats ? 4 : 1) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX
    if (floats) {
      const float value = (float)(*state >> 40) / (1 << 23) - 1;  // -1 to 1
      memcpy(bytes + i, &value, 4);
    } else {
      bytes[i] = (unsigned char)(*state >> 56);
    }
  }
}

// The sample holds the inputs one after the other.
static void load_inputs(const Engine *engine, const Opened *opened, const char *sample) {
  FILE *file = sample ? fopen(sample, "rb") : NULL;
  if (sample && !file) refuse(INPUT, "", "the sample %s cannot be opened", sample);
  uint64_t state = NOISE_SEED;
  for (int i = 0; i < opened->input_count; ++i) {
    const Tensor *tensor = &opened->inputs[i];
    unsigned char *bytes = malloc(tensor->bytes + 1);
    if (!bytes) refuse(DEVICE, "", "out of memory");
    if (!file) {
      fill_with_noise(tensor, &state, bytes);
    } else if (fread(bytes, 1, tensor->bytes, file) != tensor->bytes) {
      refuse(INPUT, "", "the sample has less than the %zu bytes of the input %s, %s",
             tensor->bytes, tensor->name, tensor->dtype);
    }
    engine->load(i, bytes, tensor->bytes);
    free(bytes);
  }
  if (file && fgetc(file) != EOF) refuse(INPUT, "", "the sample has more bytes than the inputs");
  if (file) fclose(file);
}

// The outputs one after the other.
static void write_outputs(const Engine *engine, const Opened *opened, const char *path) {
  FILE *file = fopen(path, "wb");
  bool written = file != NULL;
  for (int i = 0; written && i < opened->output_count; ++i) {
    const size_t size = opened->outputs[i].bytes;
    void *bytes = malloc(size + 1);
    if (!bytes) refuse(DEVICE, "", "out of memory");
    engine->fetch(i, bytes, size);
    written = fwrite(bytes, 1, size, file) == size;
    free(bytes);
  }
  if (!file || fclose(file) || !written) refuse(DEVICE, "", "%s cannot be written", path);
}

static long number(const char *option, const char *text, long low, long high) {
  char *end;
  const long value = strtol(text, &end, 0);
  if (!*text || *end || value < low || value > high)
    refuse(USAGE, "", "%s %s is no number from %ld to %ld", option, text, low, high);
  return value;
}

static void pin(unsigned long mask) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (unsigned cpu = 0; cpu < 8 * sizeof mask; ++cpu)
    if (mask >> cpu & 1) CPU_SET(cpu, &cpus);
  if (sched_setaffinity(0, sizeof cpus, &cpus))
    refuse(DEVICE, "", "the system does not let it run on the CPUs 0x%lx", mask);
}

static const Engine *engine_named(const char *name) {
  for (size_t i = 0; i < sizeof engines / sizeof *engines; ++i)
    if (strcmp(engines[i]->name, name) == 0) return engines[i];
  refuse(USAGE, "there are litert, onnxruntime", "this runner has no runtime '%s'", name);
}

int main(int argc, char **argv) {
  events = fdopen(dup(1), "w");
  dup2(2, 1);
  const bool answers = argc > 1 && strcmp(argv[1], "answer") == 0;
  if (!answers && (argc < 2 || strcmp(argv[1], "bench") != 0))
    refuse(USAGE, "the Python runner does the rest", "this runner can bench and answer only");
  Request request = {0};
  const char *runtime = NULL, *sample = NULL, *output = NULL, *version = "", *clocks = NULL;
  char before[4096] = "", after[4096] = "";
  long max_runs = -1, mask = 0;
  for (int i = 2; i < argc; ++i) {
    const char *option = argv[i];
    if (strcmp(option, "--marks") == 0) {
      counted = true;
      continue;
    }
    if (strcmp(option, "--cold") == 0) {
      cold = true;
      continue;
    }
    if (i + 1 == argc) refuse(USAGE, "", "%s needs a value", option);
    const char *value = argv[++i];
    if (strcmp(option, "--model") == 0) request.model = value;
    else if (strcmp(option, "--runtime") == 0) runtime = value;
    else if (strcmp(option, "--threads") == 0) request.threads = (int)number(option, value, 1, 64);
    else if (strcmp(option, "--delegate") == 0) request.delegate = value;
    else if (strcmp(option, "--sample") == 0) sample = value;
    else if (strcmp(option, "--max-runs") == 0) max_runs = number(option, value, -1, 1 << 30);
    else if (strcmp(option, "--library") == 0) request.library = value;
    else if (strcmp(option, "--library-version") == 0) version = value;
    else if (strcmp(option, "--output") == 0) output = value;
    else if (strcmp(option, "--profile") == 0) request.profile = value;
    else if (strcmp(option, "--clocks") == 0) clocks = value;
    else if (strcmp(option, "--cpus") == 0) mask = number(option, value, 1, 0x7fffffffffffffff);
    else refuse(USAGE, "", "this runner has no option %s", option);
  }
  if (!request.model || !runtime || !request.threads)
    refuse(USAGE, "", "--model, --runtime and --threads are needed");
  const Engine *engine = engine_named(runtime);
  if (!request.library) request.library = engine->library;
  if (mask) pin((unsigned long)mask);

  if (counted && request.threads > 1)
    refuse(USAGE, "leave --threads at 1", "instructions are counted of one thread");
  if (counted && max_runs < 0) refuse(USAGE, "", "--marks needs --max-runs");

  if ((counted || cold) && answers) refuse(USAGE, "", "--marks and --cold are for bench");
  if (counted && cold) refuse(USAGE, "", "--cold is for times, and --marks for instructions");

  Opened opened = {0};
  engine->open(&request, &opened);
  if (!answers) load_inputs(engine, &opened, sample);
  say_ready(engine, &opened, request.threads, version);
  if (cold) say_loaded(&opened);
  if (answers) {
    answer(engine, &opened);
  } else {
    read_clocks(clocks, before, sizeof before);
    bench(engine, max_runs);
    read_clocks(clocks, after, sizeof after);
    // What a counter sees stays what is timed.
    if (sample && !counted) say_answer(engine, &opened, 0);
  }
  if (output) write_outputs(engine, &opened, output);
  engine->close();
  begin_event("Done");
  fprintf(events, ",\"peak_rss_bytes\":%ld", peak_rss_bytes());
  if (*before && *after) {
    fputs(",\"clocks\":[", events);
    say_text(before);
    fputc(',', events);
    say_text(after);
    fputc(']', events);
  }
  end_event();
  // Not exit(): the engines' own clean-up has nothing to do with what was asked.
  _exit(0);
}
