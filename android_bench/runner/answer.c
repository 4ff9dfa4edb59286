// Raw inputs on standard input, raw outputs as events: a model is judged where it runs.
#include <stdlib.h>
#include <string.h>

#include "engine.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// The checksum of zlib and PNG (RFC 1952, 8): a link that loses a bit must not change an answer.
static uint32_t crc32(const unsigned char *bytes, size_t size) {
  static uint32_t table[256];
  if (!table[1])
    for (uint32_t i = 0; i < 256; ++i) {
      table[i] = i;
      for (int bit = 0; bit < 8; ++bit)
        table[i] = table[i] & 1 ? 0xedb88320u ^ (table[i] >> 1) : table[i] >> 1;
    }
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; ++i) crc = table[(crc ^ bytes[i]) & 255] ^ (crc >> 8);
  return ~crc;
}

static void say_base64(const unsigned char *bytes, size_t size) {
  for (size_t i = 0; i < size; i += 3) {
    const size_t left = size - i;
    const uint32_t three = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                           (left > 2 ? bytes[i + 2] : 0);
    fputc(alphabet[three >> 18], events);
    fputc(alphabet[three >> 12 & 63], events);
    fputc(left > 1 ? alphabet[three >> 6 & 63] : '=', events);
    fputc(left > 2 ? alphabet[three & 63] : '=', events);
  }
}

// Whether `text` is the base64 of exactly so many bytes, which are written.
static bool from_base64(const char *text, unsigned char *bytes, size_t size) {
  static signed char values[256];
  if (!values['B']) {
    memset(values, -1, sizeof values);
    for (int i = 0; i < 64; ++i) values[(unsigned char)alphabet[i]] = (signed char)i;
  }
  if (strlen(text) != (size + 2) / 3 * 4) return false;
  for (size_t i = 0; i < size; i += 3, text += 4) {
    const size_t left = size - i;
    uint32_t three = 0;
    for (size_t k = 0; k < 4; ++k) {
      const bool padding = k > left;
      const int value = padding ? 0 : values[(unsigned char)text[k]];
      if (value < 0 || (padding && text[k] != '=')) return false;
      three = three << 6 | (uint32_t)value;
    }
    bytes[i] = (unsigned char)(three >> 16);
    if (left > 1) bytes[i + 1] = (unsigned char)(three >> 8);
    if (left > 2) bytes[i + 2] = (unsigned char)three;
  }
  return true;
}

static size_t sum(const Tensor *tensors, int count) {
  size_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += tensors[i].bytes;
  return bytes;
}

void say_answer(const Engine *engine, const Opened *opened, long index) {
  const size_t size = sum(opened->outputs, opened->output_count);
  unsigned char *bytes = calloc(1, size + 1), *place = bytes;
  if (!bytes) refuse(DEVICE, "", "out of memory");
  for (int i = 0; i < opened->output_count; ++i) {
    engine->fetch(i, place, opened->outputs[i].bytes);
    place += opened->outputs[i].bytes;
  }
  begin_event("RawAnswer");
  fprintf(events, ",\"index\":%ld,\"crc32\":%lu,\"raw\":\"", index, (unsigned long)crc32(bytes, size));
  say_base64(bytes, size);
  fputc('"', events);
  end_event();
  free(bytes);
}

void answer(const Engine *engine, const Opened *opened) {
  const size_t size = sum(opened->inputs, opened->input_count);
  const size_t room = (size + 2) / 3 * 4 + 64;
  char *line = malloc(room);
  unsigned char *bytes = malloc(size + 1);
  if (!line || !bytes) refuse(DEVICE, "", "out of memory");
  while (fgets(line, (int)room, stdin)) {
    char *end;
    const long index = strtol(line, &end, 10);
    const unsigned long told = strtoul(end, &end, 10);
    char *text = end + (*end == ' ');
    text[strcspn(text, "\n")] = '\0';
    if (!from_base64(text, bytes, size))
      refuse(DEVICE, "", "the inputs of sample %ld are not the %zu bytes that the model takes", index,
             size);
    if (crc32(bytes, size) != told)
      refuse(DEVICE, "try another cable", "the inputs of sample %ld arrived damaged", index);
    const unsigned char *place = bytes;
    for (int i = 0; i < opened->input_count; ++i) {
      engine->load(i, place, opened->inputs[i].bytes);
      place += opened->inputs[i].bytes;
    }
    engine->invoke();
    say_answer(engine, opened, index);
  }
  free(line);
  free(bytes);
}
