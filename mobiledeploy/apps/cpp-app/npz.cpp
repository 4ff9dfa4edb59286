#include "npz.h"

#include <fstream>
#include <stdexcept>

namespace {

uint32_t crc32(const std::string &content) {
  uint32_t crc = ~0u;
  for (unsigned char byte : content) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

// Little-endian numbers of `bytes` bytes each.
std::string packed(std::initializer_list<std::pair<uint32_t, int>> numbers) {
  std::string text;
  for (auto [number, bytes] : numbers)
    for (int byte = 0; byte < bytes; ++byte) text += static_cast<char>(number >> 8 * byte);
  return text;
}

// An array in numpy's format 1.0.
std::string npy(const std::vector<uint8_t> &bytes, const Contract &contract) {
  const std::string &type = contract.input.type;
  const int sides[] = {contract.height, contract.width, contract.depth};
  const int first = contract.channels_first ? 2 : 0;
  std::string head = "{'descr': '";
  head += type == "float32" ? "<f4" : type == "int8" ? "|i1" : "|u1";
  head += "', 'fortran_order': False, 'shape': (1";
  for (int axis = 0; axis < 3; ++axis) head += ", " + std::to_string(sides[(first + axis) % 3]);
  head += "), }";
  head.append(63 - (10 + head.size()) % 64, ' ');
  head += '\n';
  return "\x93NUMPY" + packed({{1, 1}, {0, 1}, {static_cast<uint32_t>(head.size()), 2}}) + head +
         std::string(bytes.begin(), bytes.end());
}

}  // namespace

void write_npz(const std::string &path, const std::vector<Array> &arrays,
               const Contract &contract) {
  std::string files, index;
  for (const Array &array : arrays) {
    const std::string name = array.name + ".npy", content = npy(array.bytes, contract);
    const auto size = static_cast<uint32_t>(content.size());
    // Version, flags, method (stored), time and date (1980-01-01), checksum, sizes, name.
    const std::string common =
        packed({{20, 2}, {0, 2}, {0, 2}, {0, 2}, {33, 2}, {crc32(content), 4}, {size, 4}, {size, 4},
                {static_cast<uint32_t>(name.size()), 2}, {0, 2}});
    index += packed({{0x02014b50, 4}, {20, 2}}) + common +
             packed({{0, 2}, {0, 2}, {0, 2}, {0, 4}, {static_cast<uint32_t>(files.size()), 4}}) +
             name;
    files += packed({{0x04034b50, 4}}) + common + name + content;
  }
  const auto count = static_cast<uint32_t>(arrays.size());
  const std::string end = packed({{0x06054b50, 4}, {0, 2}, {0, 2}, {count, 2}, {count, 2},
                                  {static_cast<uint32_t>(index.size()), 4},
                                  {static_cast<uint32_t>(files.size()), 4}, {0, 2}});
  std::ofstream stream(path, std::ios::binary);
  stream << files << index << end;
  if (!stream.flush()) throw std::runtime_error(path + " cannot be written");
}
