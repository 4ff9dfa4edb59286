// ONNX Runtime's C API (libonnxruntime.so). Its table of functions only ever grows at the end, so the
// places of the few that are used are declared here; the library is opened at run time.
#define _GNU_SOURCE
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

typedef void *Handle;
typedef Handle Status;  // NULL is success

enum { API_VERSION = 11, WARNING = 2, ARENA = 1, DEFAULT_MEMORY = 0 };

typedef struct {
  const void *const *(*get_api)(uint32_t version);
  const char *(*version)(void);
} Base;

// name, place in the table, then the types of its arguments; each returns a Status.
#define FUNCTIONS(F)                                                                          \
  F(CreateEnv, 3, int, const char *, Handle *)                                                \
  F(CreateSession, 7, Handle, const char *, Handle, Handle *)                                 \
  F(Run, 9, Handle, Handle, const char *const *, const Handle *, size_t, const char *const *, \
    size_t, Handle *)                                                                         \
  F(CreateSessionOptions, 10, Handle *)                                                       \
  F(EnableProfiling, 14, Handle, const char *)                                                \
  F(SetIntraOpNumThreads, 24, Handle, int)                                                    \
  F(SetInterOpNumThreads, 25, Handle, int)                                                    \
  F(SessionGetInputCount, 30, Handle, size_t *)                                               \
  F(SessionGetOutputCount, 31, Handle, size_t *)                                              \
  F(SessionGetInputTypeInfo, 33, Handle, size_t, Handle *)                                    \
  F(SessionGetOutputTypeInfo, 34, Handle, size_t, Handle *)                                   \
  F(SessionGetInputName, 36, Handle, size_t, Handle, char **)                                 \
  F(SessionGetOutputName, 37, Handle, size_t, Handle, char **)                                \
  F(CreateTensorWithDataAsOrtValue, 49, Handle, void *, size_t, const int64_t *, size_t, int, \
    Handle *)                                                                                 \
  F(CastTypeInfoToTensorInfo, 55, Handle, Handle *)                                           \
  F(GetTensorElementType, 60, Handle, int *)                                                  \
  F(GetDimensionsCount, 61, Handle, size_t *)                                                 \
  F(GetDimensions, 62, Handle, int64_t *, size_t)                                             \
  F(CreateCpuMemoryInfo, 69, int, int, Handle *)                                              \
  F(GetAllocatorWithDefaultOptions, 78, Handle *)                                             \
  F(AddSessionConfigEntry, 130, Handle, const char *, const char *)

#define DECLARE(name, place, ...) static Status (*name)(__VA_ARGS__);
FUNCTIONS(DECLARE)
static const char *(*GetErrorMessage)(Status);
static void (*ReleaseSession)(Handle);

static struct {
  const char *name, *profile;
  Handle session, inputs[MAX_ENDS], outputs[MAX_ENDS];
  void *input_bytes[MAX_ENDS], *output_bytes[MAX_ENDS];
  const char *input_names[MAX_ENDS], *output_names[MAX_ENDS];
  size_t input_count, output_count;
} self;

static void demand(Status status, const char *what) {
  if (!status) return;
  refuse(INPUT, "", "onnxruntime cannot %s %s: %s", what, self.name, GetErrorMessage(status));
}

static size_t width(int element_type, const char **dtype) {
  switch (element_type) {
    case 1: *dtype = "float32"; return 4;
    case 2: *dtype = "uint8"; return 1;
    case 3: *dtype = "int8"; return 1;
    case 5: *dtype = "int16"; return 2;
    case 6: *dtype = "int32"; return 4;
    case 7: *dtype = "int64"; return 8;
    case 9: *dtype = "bool"; return 1;
    case 10: *dtype = "float16"; return 2;
    default:
      refuse(INPUT, "make the file again, with float32, bool or integers",
             "onnxruntime: %s has an input or output of element type %d", self.name, element_type);
  }
}

// Describes a tensor, and makes its value with memory of its own.
static Handle make_value(Handle type, Handle memory, Tensor *told, void **bytes) {
  Handle info, value;
  int element_type;
  size_t rank;
  demand(CastTypeInfoToTensorInfo(type, &info), "tell the tensors of");
  // A sequence or a map has no such description.
  if (!info)
    refuse(INPUT, "make the file again, with tensors only",
           "%s has an input or output that is no tensor", self.name);
  demand(GetTensorElementType(info, &element_type), "tell the tensors of");
  demand(GetDimensionsCount(info, &rank), "tell the tensors of");
  if (rank > MAX_RANK)
    refuse(INPUT, "make the file again, with fewer axes",
           "%s has an input or output with %zu axes, %d are the most", self.name, rank, MAX_RANK);
  demand(GetDimensions(info, told->shape, rank), "tell the tensors of");
  told->rank = (int)rank;
  told->bytes = width(element_type, &told->dtype);
  // The batch is 1 where the file leaves it open.
  if (rank && told->shape[0] < 0) told->shape[0] = 1;
  for (size_t i = 0; i < rank; ++i) {
    if (told->shape[i] < 0)
      refuse(INPUT, "make the file again, with fixed shapes",
             "%s has no fixed shape: axis %zu of an input or output is open", self.name, i);
    if (__builtin_mul_overflow(told->bytes, (size_t)told->shape[i], &told->bytes) ||
        told->bytes > PTRDIFF_MAX - 64)
      refuse(INPUT, "make the file again, with smaller tensors",
             "%s has an input or output of more bytes than can be counted", self.name);
  }
  // Aligned, so that where the allocator happens to put it changes nothing.
  if (posix_memalign(bytes, 64, told->bytes + 64)) refuse(DEVICE, "", "out of memory");
  memset(*bytes, 0, told->bytes + 64);
  demand(CreateTensorWithDataAsOrtValue(memory, *bytes, told->bytes, told->shape, rank,
                                        element_type, &value),
         "make the tensors of");
  return value;
}

static void open_model(const Request *request, Opened *opened) {
  if (request->delegate && strcmp(request->delegate, "none") != 0)
    refuse(USAGE, "there is none", "onnxruntime has no delegate '%s'", request->delegate);
  // It reports what runs to its makers otherwise, from a thread and a database of its own.
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  lap_ns();
  void *library = open_library(request->library);
  const Base *(*get_base)(void);
  *(void **)&get_base = find(library, "OrtGetApiBase");
  const Base *base = get_base();
  const void *const *api = base->get_api(API_VERSION);
  if (!api) refuse(MISSING, "", "%s does not know version %d of its API", request->library, API_VERSION);
#define FIND(name, place, ...) *(const void **)&name = api[place];
  FUNCTIONS(FIND)
  *(const void **)&GetErrorMessage = api[2];
  *(const void **)&ReleaseSession = api[95];
  const char *slash = strrchr(request->model, '/');
  self.name = slash ? slash + 1 : request->model;
  self.profile = request->profile;

  Handle environment, options, memory, allocator, type;
  demand(CreateEnv(WARNING, "runner", &environment), "start for");
  opened->library_ns = lap_ns();
  demand(CreateSessionOptions(&options), "start for");
  demand(SetIntraOpNumThreads(options, request->threads), "start for");
  demand(SetInterOpNumThreads(options, 1), "start for");
  // On x86-64 without VNNI its faster int8 kernels add two products in 16 bits, and saturate.
  demand(AddSessionConfigEntry(options, "session.x64quantprecision", "1"), "start for");
  if (request->profile) demand(EnableProfiling(options, request->profile), "profile");
  demand(CreateSession(environment, request->model, options, &self.session), "load");

  demand(SessionGetInputCount(self.session, &self.input_count), "load");
  demand(SessionGetOutputCount(self.session, &self.output_count), "load");
  opened->input_count = end_count(self.input_count, "inputs", self.name);
  opened->output_count = end_count(self.output_count, "outputs", self.name);
  demand(CreateCpuMemoryInfo(ARENA, DEFAULT_MEMORY, &memory), "load");
  demand(GetAllocatorWithDefaultOptions(&allocator), "load");
  for (size_t i = 0; i < self.input_count; ++i) {
    char **name = (char **)&self.input_names[i];
    demand(SessionGetInputName(self.session, i, allocator, name), "load");
    demand(SessionGetInputTypeInfo(self.session, i, &type), "load");
    opened->inputs[i].name = *name;
    self.inputs[i] = make_value(type, memory, &opened->inputs[i], &self.input_bytes[i]);
  }
  for (size_t i = 0; i < self.output_count; ++i) {
    char **name = (char **)&self.output_names[i];
    demand(SessionGetOutputName(self.session, i, allocator, name), "load");
    demand(SessionGetOutputTypeInfo(self.session, i, &type), "load");
    opened->outputs[i].name = *name;
    self.outputs[i] = make_value(type, memory, &opened->outputs[i], &self.output_bytes[i]);
  }
  // A session reads the file and prepares it in one call.
  opened->load_ns = -1;
  opened->prepare_ns = lap_ns();
  opened->version = base->version();
  opened->delegate = "none";
  opened->delegated = "null";
  opened->total_nodes = -1;
}

static void load(int input, const void *bytes, size_t size) {
  memcpy(self.input_bytes[input], bytes, size);
}

static void invoke(void) {
  demand(Run(self.session, NULL, self.input_names, self.inputs, self.input_count,
             self.output_names, self.output_count, self.outputs),
         "run");
}

static void fetch(int output, void *bytes, size_t size) {
  memcpy(bytes, self.output_bytes[output], size);
}

// Its profile, JSON, is written when the session ends, to a file of its own naming.
static void close_model(void) {
  ReleaseSession(self.session);
  if (!self.profile) return;
  char pattern[4096];
  glob_t found;
  snprintf(pattern, sizeof pattern, "%s_*.json", self.profile);
  if (glob(pattern, 0, NULL, &found) || found.gl_pathc != 1 ||
      rename(found.gl_pathv[0], self.profile))
    refuse(DEVICE, "", "onnxruntime wrote no profile of %s", self.name);
}

const Engine onnxruntime = {
    .name = "onnxruntime",
    .library = "libonnxruntime.so",
    .open = open_model,
    .load = load,
    .invoke = invoke,
    .fetch = fetch,
    .close = close_model,
};
