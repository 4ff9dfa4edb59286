// LiteRT's C API (libLiteRt.so of ai-edge-litert). No package ships its headers, so the part that is
// used is declared here; the library is opened at run time.
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "engine.h"

typedef int Status;  // 0 is success
typedef void *Handle;

typedef struct {
  unsigned int rank : 7;
  bool has_strides : 1;
  int32_t dimensions[MAX_RANK];
  uint32_t strides[MAX_RANK];
} Layout;

typedef struct {
  int element_type;
  Layout layout;
} RankedType;

typedef struct {
  const char *tag;
  int type;
  uint64_t start_us, elapsed_us;
  int64_t memory[6];
  uint64_t node, subgraph;
  int source;
} ProfileEvent;

typedef struct {
  int tag;
  struct {
    int type;
    union {
      int64_t number;
      const char *text;
    };
  } value;
} EnvironmentOption;

enum { CPU = 1, GPU = 2, READ = 0, WRITE = 1 };
// An option of the environment: the folder of the library that drives a GPU. Its value is a string.
enum { RUNTIME_LIBRARY_DIR = 22, STRING = 8 };
static const char accelerator[] = "libLiteRtWebGpuAccelerator.so";
// The type of the profiler's events for operators that no delegate took: its own it tells otherwise.
enum { OPERATOR = 2 };

// name, then the types of its arguments; each returns a Status.
#define FUNCTIONS(F)                                                                  \
  F(CreateEnvironment, int, const void *, Handle *)                                   \
  F(CreateModelFromFile, Handle, const char *, Handle *)                              \
  F(CreateOptions, Handle *)                                                          \
  F(SetOptionsHardwareAccelerators, Handle, int)                                      \
  F(CreateOpaqueOptions, const char *, void *, void (*)(void *), Handle *)            \
  F(AddOpaqueOptions, Handle, Handle)                                                 \
  F(CreateCompiledModel, Handle, Handle, Handle, Handle *)                            \
  F(GetModelSignature, Handle, size_t, Handle *)                                      \
  F(GetNumSignatureInputs, Handle, size_t *)                                          \
  F(GetNumSignatureOutputs, Handle, size_t *)                                         \
  F(GetSignatureInputTensorByIndex, Handle, size_t, Handle *)                         \
  F(GetSignatureOutputTensorByIndex, Handle, size_t, Handle *)                        \
  F(GetTensorName, Handle, const char **)                                             \
  F(GetRankedTensorType, Handle, RankedType *)                                        \
  F(GetCompiledModelInputBufferRequirements, Handle, size_t, size_t, Handle *)        \
  F(GetCompiledModelOutputBufferRequirements, Handle, size_t, size_t, Handle *)       \
  F(CreateManagedTensorBufferFromRequirements, Handle, const RankedType *, Handle, Handle *) \
  F(GetTensorBufferPackedSize, Handle, size_t *)                                      \
  F(LockTensorBuffer, Handle, void **, int)                                           \
  F(UnlockTensorBuffer, Handle)                                                       \
  F(RunCompiledModel, Handle, size_t, size_t, Handle *, size_t, Handle *)             \
  F(CompiledModelIsNonCpuFullyAccelerated, Handle, bool *)                            \
  F(CompiledModelGetProfiler, Handle, Handle *)                                       \
  F(StartProfiler, Handle)                                                            \
  F(GetNumProfilerEvents, Handle, int *)                                              \
  F(GetProfilerEvents, Handle, int, ProfileEvent *)                                   \
  F(GetMainModelSubgraphIndex, Handle, size_t *)                                      \
  F(GetModelSubgraph, Handle, size_t, Handle *)                                       \
  F(GetNumSubgraphOps, Handle, size_t *)

#define DECLARE(name, ...) static Status (*name)(__VA_ARGS__);
FUNCTIONS(DECLARE)

static struct {
  const char *name;
  Handle compiled, profiler, inputs[MAX_ENDS], outputs[MAX_ENDS];
  size_t input_count, output_count;
  size_t graph, nodes;  // the main graph's index, and how many operators it has
  bool gpu;
  FILE *profile;
} self;

static void demand(Status status, const char *what) {
  if (status) refuse(INPUT, "", "litert cannot %s %s (status %d)", what, self.name, status);
}

static const char *dtype(int element_type) {
  switch (element_type) {
    case 1: return "float32";
    case 2: return "int32";
    case 3: return "uint8";
    case 4: return "int64";
    case 6: return "bool";
    case 7: return "int16";
    case 9: return "int8";
    case 10: return "float16";
    default:
      refuse(INPUT, "make the file again, with float32, bool or integers",
             "litert: %s has an input or output of element type %d", self.name, element_type);
  }
}

static void describe(Handle tensor, RankedType *type, Tensor *told) {
  demand(GetRankedTensorType(tensor, type), "tell the tensors of");
  demand(GetTensorName(tensor, &told->name), "tell the tensors of");
  told->dtype = dtype(type->element_type);
  told->rank = (int)type->layout.rank;
  if (told->rank > MAX_RANK)
    refuse(INPUT, "make the file again, with fewer axes", "%s has %s with %d axes, %d are the most",
           self.name, told->name, told->rank, MAX_RANK);
  for (int i = 0; i < told->rank; ++i) {
    if (type->layout.dimensions[i] < 0)
      refuse(INPUT, "make the file again, with fixed shapes",
             "%s has no fixed shape of its input or output %s: axis %d is open", self.name,
             told->name, i);
    told->shape[i] = type->layout.dimensions[i];
  }
}

static void make_buffer(Handle environment, const RankedType *type, Handle needs, Handle *buffer,
                        Tensor *told) {
  demand(CreateManagedTensorBufferFromRequirements(environment, type, needs, buffer), "load");
  demand(GetTensorBufferPackedSize(*buffer, &told->bytes), "load");
}

static void add_options(Handle options, const char *kind, const char *text) {
  Handle opaque;
  demand(CreateOpaqueOptions(kind, strdup(text), free, &opaque), "take options for");
  demand(AddOpaqueOptions(options, opaque), "take options for");
}

// An environment that loads the library beside the runtime's own that drives a GPU.
static Status create_gpu_environment(const char *library, Handle *environment) {
  char *folder = strdup(library), *path = NULL;
  char *end = strrchr(folder, '/');
  if (end) *end = 0;
  if (asprintf(&path, "%s/%s", end ? folder : ".", accelerator) < 0) path = NULL;
  if (!path || access(path, R_OK))
    refuse(MISSING, "--delegate xnnpack; for a phone's GPU --runner benchmark_model",
           "litert drives a GPU here with %s, which is not beside its library", accelerator);
  free(path);
  const EnvironmentOption option = {RUNTIME_LIBRARY_DIR, {STRING, {.text = end ? folder : "."}}};
  return CreateEnvironment(1, &option, environment);
}

static void open_here(const Request *request, Opened *opened) {
  const char *delegate = request->delegate ? request->delegate : "xnnpack";
  const bool builtin = strcmp(delegate, "none") == 0;
  self.gpu = strcmp(delegate, "gpu") == 0;
  if (!builtin && !self.gpu && strcmp(delegate, "xnnpack") != 0)
    refuse(USAGE, "there are xnnpack, gpu, none", "litert has no delegate '%s' here", delegate);
  lap_ns();
  void *library = open_library(request->library);
#define FIND(name, ...) *(void **)&name = find(library, "LiteRt" #name);
  FUNCTIONS(FIND)
  const char *slash = strrchr(request->model, '/');
  self.name = slash ? slash + 1 : request->model;

  Handle environment, model, options, signature;
  demand(self.gpu ? create_gpu_environment(request->library, &environment)
                  : CreateEnvironment(0, NULL, &environment),
         "start for");
  opened->library_ns = lap_ns();
  demand(CreateModelFromFile(environment, request->model, &model), "load");
  opened->load_ns = lap_ns();
  demand(CreateOptions(&options), "start for");
  demand(SetOptionsHardwareAccelerators(options, self.gpu ? GPU | CPU : CPU), "start for");
  char text[64];
  // Kernel mode 2 is the built-in kernels, optimized but for no delegate. They run what a GPU leaves.
  snprintf(text, sizeof text, "num_threads = %d\n%s", request->threads,
           builtin || self.gpu ? "kernel_mode = 2\n" : "");
  add_options(options, "xnnpack", text);
  if (request->profile) add_options(options, "runtime_options_string", "enable_profiling = true\n");
  const Status compiled = CreateCompiledModel(environment, model, options, &self.compiled);
  if (compiled && self.gpu)
    refuse(DEVICE, "it needs a GPU with a Vulkan driver; else --delegate xnnpack",
           "litert cannot load %s on a GPU here (status %d)", self.name, compiled);
  demand(compiled, "load");

  demand(GetModelSignature(model, 0, &signature), "load");
  demand(GetNumSignatureInputs(signature, &self.input_count), "load");
  demand(GetNumSignatureOutputs(signature, &self.output_count), "load");
  opened->input_count = end_count(self.input_count, "inputs", self.name);
  opened->output_count = end_count(self.output_count, "outputs", self.name);

  Handle tensor, needs;
  RankedType type;
  for (size_t i = 0; i < self.input_count; ++i) {
    demand(GetSignatureInputTensorByIndex(signature, i, &tensor), "load");
    describe(tensor, &type, &opened->inputs[i]);
    demand(GetCompiledModelInputBufferRequirements(self.compiled, 0, i, &needs), "load");
    make_buffer(environment, &type, needs, &self.inputs[i], &opened->inputs[i]);
  }
  for (size_t i = 0; i < self.output_count; ++i) {
    demand(GetSignatureOutputTensorByIndex(signature, i, &tensor), "load");
    describe(tensor, &type, &opened->outputs[i]);
    demand(GetCompiledModelOutputBufferRequirements(self.compiled, 0, i, &needs), "load");
    make_buffer(environment, &type, needs, &self.outputs[i], &opened->outputs[i]);
  }

  opened->prepare_ns = lap_ns();

  Handle graph;
  demand(GetMainModelSubgraphIndex(model, &self.graph), "load");
  demand(GetModelSubgraph(model, self.graph, &graph), "load");
  demand(GetNumSubgraphOps(graph, &self.nodes), "load");
  opened->total_nodes = (int)self.nodes;
  opened->delegated = builtin ? "0" : "null";
  opened->version = "";
  opened->delegate = delegate;
  if (request->profile) {
    self.profile = fopen(request->profile, "w");
    if (!self.profile) refuse(DEVICE, "", "%s cannot be written", request->profile);
    demand(CompiledModelGetProfiler(self.compiled, &self.profiler), "profile");
  }
}

static void load(int input, const void *bytes, size_t size) {
  void *place;
  demand(LockTensorBuffer(self.inputs[input], &place, WRITE), "fill an input of");
  memcpy(place, bytes, size);
  demand(UnlockTensorBuffer(self.inputs[input]), "fill an input of");
}

static void invoke(void) {
  // This also forgets the events of the run before.
  if (self.profiler) demand(StartProfiler(self.profiler), "profile");
  demand(RunCompiledModel(self.compiled, 0, self.input_count, self.inputs, self.output_count,
                          self.outputs),
         "run");
  // A GPU may still compute. Its answer is there when it can be read.
  void *place;
  for (size_t i = 0; self.gpu && i < self.output_count; ++i) {
    demand(LockTensorBuffer(self.outputs[i], &place, READ), "read an output of");
    demand(UnlockTensorBuffer(self.outputs[i]), "read an output of");
  }
}

static void fetch(int output, void *bytes, size_t size) {
  void *place;
  demand(LockTensorBuffer(self.outputs[output], &place, READ), "read an output of");
  memcpy(bytes, place, size);
  demand(UnlockTensorBuffer(self.outputs[output]), "read an output of");
}

// The profiler's events of the last run.
static ProfileEvent *profiled(int *count) {
  demand(GetNumProfilerEvents(self.profiler, count), "profile");
  ProfileEvent *events = calloc((size_t)*count + 1, sizeof *events);
  if (!events) refuse(DEVICE, "", "out of memory");
  demand(GetProfilerEvents(self.profiler, *count, events), "profile");
  return events;
}

// Which operators a delegate took: all but those that the profiler sees run one by one. No function
// of the library tells, and the profiler slows the runs: hence a model of its own.
static void say_profiled_nodes(const Request *plain) {
  Request request = *plain;
  Opened opened = {0};
  request.profile = "/dev/null";
  open_here(&request, &opened);
  for (int i = 0; i < opened.input_count; ++i) {
    void *zeros = calloc(1, opened.inputs[i].bytes + 1);
    if (!zeros) refuse(DEVICE, "", "out of memory");
    load(i, zeros, opened.inputs[i].bytes);
    free(zeros);
  }
  invoke();
  int count, left = 0;
  const ProfileEvent *profile = profiled(&count);
  bool *alone = calloc(self.nodes + 1, sizeof *alone);
  if (!alone) refuse(DEVICE, "", "out of memory");
  // A delegate's own nodes come after those of the graph.
  for (int i = 0; i < count; ++i)
    if (profile[i].type == OPERATOR && profile[i].subgraph == self.graph &&
        profile[i].node < self.nodes)
      alone[profile[i].node] = true;
  for (size_t i = 0; i < self.nodes; ++i) left += alone[i];
  fprintf(events, "%d,\"left_nodes\":[", (int)self.nodes - left);
  const char *separator = "";
  for (size_t i = 0; i < self.nodes; ++i) {
    if (!alone[i]) continue;
    fprintf(events, "%s%zu", separator, i);
    separator = ",";
  }
  fputc(']', events);
}

// What a GPU took, by the engine's log: only the log tells why it leaves an operator and which GPU
// it is, and there is no profiler for GPUs.
static void say_gpu_nodes(const Request *request) {
  const int log = memfd_create("log", 0);
  Opened opened = {0};
  if (log < 0 || dup2(log, 2) < 0) refuse(DEVICE, "", "no memory for a log");
  open_here(request, &opened);
  bool whole;
  demand(CompiledModelIsNonCpuFullyAccelerated(self.compiled, &whole), "ask about");
  const off_t size = lseek(log, 0, SEEK_END);
  char *text = calloc(1, (size_t)size + 1);
  if (!text || pread(log, text, (size_t)size, 0) != size) refuse(DEVICE, "", "no log");

  char *adapter = strstr(text, "Selected adapter: ");
  if (adapter) adapter = strchr(adapter, ':') + 2;
  char *reason = strstr(text, "are not supported by GPU delegate"), *after = NULL;
  int taken = whole ? (int)self.nodes : -1;
  if (reason) {
    reason += strcspn(reason, "\n");
    after = strstr(reason, "perations will run on the");
    while (after && after > reason && after[-1] != '\n') --after;
    if (after && !whole && sscanf(after, "%d operations", &taken) != 1) taken = 0;
  }
  if (taken < 0) fputs("null", events);
  else fprintf(events, "%d", taken);
  fputs(",\"left_reasons\":[", events);
  if (after) after[-1] = 0;
  if (adapter) adapter[strcspn(adapter, "\n")] = 0;
  const char *separator = "";
  for (char *line = after ? strtok(reason, "\n") : NULL; line; line = strtok(NULL, "\n")) {
    fputs(separator, events);
    say_text(line);
    separator = ",";
  }
  fputs("],\"adapter\":", events);
  say_text(adapter ? adapter : "");
}

static void say_delegated(const Request *request) {
  const bool gpu = request->delegate && strcmp(request->delegate, "gpu") == 0;
  (gpu ? say_gpu_nodes : say_profiled_nodes)(request);
}

static void open_model(const Request *request, Opened *opened) {
  const bool builtin = request->delegate && strcmp(request->delegate, "none") == 0;
  // Not where instructions are counted: that would be a second program to count. With --cold it
  // would warm the caches.
  const char *delegated = builtin || counted || cold ? NULL : apart(say_delegated, request);
  open_here(request, opened);
  if (delegated) opened->delegated = delegated;
}

// The events of the last run, one a line: type, node, tag.
static void close_model(void) {
  if (!self.profiler) return;
  int count;
  const ProfileEvent *events = profiled(&count);
  for (int i = 0; i < count; ++i)
    fprintf(self.profile, "%d\t%llu\t%s\n", events[i].type, (unsigned long long)events[i].node,
            events[i].tag ? events[i].tag : "");
  fclose(self.profile);
}

const Engine litert = {
    .name = "litert",
    .library = "libLiteRt.so",
    .open = open_model,
    .load = load,
    .invoke = invoke,
    .fetch = fetch,
    .close = close_model,
};
