// A QEMU TCG plugin that counts the AArch64 instructions of a program's first thread, by class.
//
// qemu-aarch64 -plugin libcounter.so,out=FILE PROGRAM ...
//
// The program tells where it is with a system call of number 0x6d64, which no kernel has: (0, N) at
// the mark N, (1, C) when the clock C is read, as engines do between operators when they profile.
// At each, a Counts event of PROTOCOL.md goes to FILE, with all that was executed since the start.
//
// The plugin API, version 1, is declared here: few distributions package its header.
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t PluginId;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*OnTranslation)(PluginId, struct qemu_plugin_tb *);
typedef void (*OnExecution)(unsigned, void *);
typedef void (*OnCall)(PluginId, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(PluginId, OnTranslation);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, OnExecution, int, void *);
void qemu_plugin_register_vcpu_syscall_cb(PluginId, OnCall);

EXPORT int qemu_plugin_version = 1;

enum { NO_REGISTERS = 0, FIRST_THREAD = 0, MARK_CALL = 0x6d64 };

enum {
  SDOT, MMLA, FMLA, FMLA16, FMADD, MLA, SIMD, LOAD_SIMD, STORE_SIMD, LOAD, STORE, PREFETCH, BRANCH,
  ALU, OTHER, BYTES_LOADED, BYTES_STORED, COUNTS
};
static const char *const names[COUNTS] = {
    "sdot", "mmla", "fmla", "fmla16", "fmadd", "mla", "simd", "load_simd", "store_simd", "load",
    "store", "prefetch", "branch", "alu", "other", "bytes_loaded", "bytes_stored",
};

// Arithmetic of SIMD and floating point: the multiplications that a network is made of. Encodings:
// Arm Architecture Reference Manual for A-profile, C4.1 "A64 instruction set encoding".
static const struct { uint32_t mask, value; int class; } arithmetic[] = {
    {0x9FE0FC00, 0x0E809400, SDOT},    // SDOT, UDOT
    {0x9FC0F400, 0x0F80E000, SDOT},    // the same by element
    {0xBFE0FC00, 0x0E809C00, SDOT},    // USDOT
    {0xBF40F400, 0x0F00F000, SDOT},    // USDOT, SUDOT by element
    {0xDFE0FC00, 0x4E80A400, MMLA},    // SMMLA, UMMLA
    {0xFFE0FC00, 0x4E80AC00, MMLA},    // USMMLA
    {0xFFE0FC00, 0x6E40EC00, MMLA},    // BFMMLA
    {0xBF20FC00, 0x0E20CC00, FMLA},    // FMLA, FMLS
    {0xBF80B400, 0x0F801000, FMLA},    // the same by element
    {0xBF60FC00, 0x0E400C00, FMLA16},  // FMLA, FMLS of half precision
    {0xBFC0B400, 0x0F001000, FMLA16},  // the same by element
    {0xFF000000, 0x1F000000, FMADD},   // FMADD, FMSUB, FNMADD, FNMSUB
    {0x9F20DC00, 0x0E208000, MLA},     // [SU]MLAL, [SU]MLSL
    {0x9F20FC00, 0x0E20C000, MLA},     // [SU]MULL
    {0x9F20FC00, 0x0E209400, MLA},     // MLA, MLS
    {0x9F20FC00, 0x0E209C00, MLA},     // MUL
    {0x9F00B400, 0x0F002000, MLA},     // [SU]MLAL, [SU]MLSL by element
    {0x9F00F400, 0x0F00A000, MLA},     // [SU]MULL by element
    {0xBF00B400, 0x2F000000, MLA},     // MLA, MLS by element
    {0xBF00F400, 0x0F008000, MLA},     // MUL by element
};

// A translated block: how often it ran, and what one run of it counts.
typedef struct Block {
  struct Block *next;
  uint64_t runs;
  uint16_t counts[COUNTS];
} Block;

static Block *blocks;
static FILE *out;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void count_memory(uint32_t word, uint16_t *counts) {
  const unsigned size = word >> 30;
  bool simd = word >> 26 & 1, load = word >> 22 & 1;
  unsigned bytes;
  if ((word & 0xBF000000) == 0x0C000000) {  // LD1 to ST4, whole registers
    static const unsigned registers[16] = {4, 0, 4, 0, 3, 0, 3, 1, 2, 0, 2};
    bytes = registers[word >> 12 & 15] * (word >> 30 & 1 ? 16 : 8);
  } else if ((word & 0xBF000000) == 0x0D000000) {  // LD1 to ST4, one element
    const unsigned opcode = word >> 13 & 7, elements = 1 + ((word >> 21 & 1) | (opcode & 1) << 1);
    const unsigned width = opcode >> 1 == 3 ? word >> 10 & 3 : opcode >> 1;
    // Of four bytes and of eight are told apart by the size field.
    bytes = elements << (width == 2 && (word >> 10 & 1) ? 3 : width);
  } else if ((word >> 27 & 7) == 5) {  // LDP, STP
    bytes = 2 * (simd ? 4u << size : size == 2 ? 8 : 4);
  } else if ((word >> 27 & 7) == 3 && !(word >> 24 & 1)) {  // LDR literal
    if (!simd && size == 3) {
      ++counts[PREFETCH];
      return;
    }
    load = true;
    bytes = simd ? 4u << size : size == 1 ? 8 : 4;
  } else if ((word >> 27 & 7) == 7) {  // LDR, STR
    const unsigned opcode = word >> 22 & 3;
    if (!simd && size == 3 && opcode == 2) {
      ++counts[PREFETCH];
      return;
    }
    load = simd ? opcode & 1 : opcode != 0;
    bytes = simd && opcode & 2 ? 16 : 1u << size;
  } else {  // exclusive, acquire, release
    bytes = 1u << size;
  }
  ++counts[simd ? load ? LOAD_SIMD : STORE_SIMD : load ? LOAD : STORE];
  counts[load ? BYTES_LOADED : BYTES_STORED] += (uint16_t)bytes;
}

static int class_of_arithmetic(uint32_t word) {
  for (size_t i = 0; i < sizeof arithmetic / sizeof *arithmetic; ++i)
    if ((word & arithmetic[i].mask) == arithmetic[i].value) return arithmetic[i].class;
  return SIMD;
}

static void count(uint32_t word, uint16_t *counts) {
  const unsigned group = word >> 25 & 15;
  if ((group & 5) == 4) count_memory(word, counts);
  else if ((group & 7) == 7) ++counts[class_of_arithmetic(word)];
  else if ((group & 14) == 10) ++counts[BRANCH];
  else if ((group & 14) == 8 || (group & 7) == 5) ++counts[ALU];
  else ++counts[OTHER];
}

static void on_execution(unsigned thread, void *block) {
  if (thread == FIRST_THREAD) ++((Block *)block)->runs;
}

static void on_translation(PluginId id, struct qemu_plugin_tb *translated) {
  (void)id;
  Block *block = calloc(1, sizeof *block);
  if (!block) abort();
  const size_t length = qemu_plugin_tb_n_insns(translated);
  for (size_t i = 0; i < length; ++i) {
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(translated, i)), sizeof word);
    count(word, block->counts);
  }
  pthread_mutex_lock(&lock);
  block->next = blocks;
  blocks = block;
  pthread_mutex_unlock(&lock);
  qemu_plugin_register_vcpu_tb_exec_cb(translated, on_execution, NO_REGISTERS, block);
}

static void tell(const char *what, uint64_t argument) {
  uint64_t sums[COUNTS] = {0};
  pthread_mutex_lock(&lock);
  for (const Block *block = blocks; block; block = block->next)
    if (block->runs)
      for (int i = 0; i < COUNTS; ++i) sums[i] += block->runs * block->counts[i];
  pthread_mutex_unlock(&lock);
  fprintf(out, "{\"schema_version\":2,\"record\":\"Counts\",\"at\":\"%s\",\"argument\":%llu", what,
          (unsigned long long)argument);
  for (int i = 0; i < COUNTS; ++i)
    fprintf(out, "%s\"%s\":%llu", i ? "," : ",\"counts\":{", names[i],
            (unsigned long long)sums[i]);
  fputs("}}\n", out);
  fflush(out);
}

static void on_call(PluginId id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                    uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number == MARK_CALL && cpu == FIRST_THREAD) tell(a1 ? "clock" : "mark", a2);
}

EXPORT int qemu_plugin_install(PluginId id, const void *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "out=", 4)) return -1;
    out = fopen(argv[i] + 4, "w");
  }
  if (!out) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_vcpu_syscall_cb(id, on_call);
  return 0;
}
