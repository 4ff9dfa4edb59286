#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>

namespace {

constexpr int kPrecision = 32 - 8 - 2;  // bits of a weight's fraction, as in Pillow

struct Filter {
  double (*weight)(double);
  double support;
};

double bilinear(double x) {
  x = std::abs(x);
  return x < 1 ? 1 - x : 0;
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Where the pixels of a new row come from: `first` old pixel, and the weights of it and the next.
struct Source {
  int first;
  std::vector<int> weights;
};

// Pillow's weights: the filter is widened for smaller sizes, so that nothing aliases.
std::vector<Source> sources(int old_size, int new_size, const Filter &filter) {
  std::vector<Source> table;
  const double scale = static_cast<double>(old_size) / new_size;
  const double widened = std::max(scale, 1.0), support = filter.support * widened;
  for (int place = 0; place < new_size; ++place) {
    const double center = (place + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int end = std::min(static_cast<int>(center + support + 0.5), old_size);
    std::vector<double> weights;
    double sum = 0;
    for (int x = first; x < end; ++x) {
      weights.push_back(filter.weight((x - center + 0.5) * (1 / widened)));
      sum += weights.back();
    }
    Source source{first, {}};
    for (double weight : weights) {
      const double whole = (sum != 0 ? weight / sum : weight) * (1 << kPrecision);
      source.weights.push_back(static_cast<int>(whole + (whole < 0 ? -0.5 : 0.5)));
    }
    table.push_back(source);
  }
  return table;
}

// One axis of a resize: pixels of `old_size` places, each `stride` values from the next.
void resize_axis(const uint8_t *from, uint8_t *to, const std::vector<Source> &table, int stride) {
  for (const Source &source : table) {
    int sum = 1 << (kPrecision - 1);
    const uint8_t *pixel = from + source.first * stride;
    for (int weight : source.weights) {
      sum += *pixel * weight;
      pixel += stride;
    }
    *to = static_cast<uint8_t>(std::clamp(sum >> kPrecision, 0, 255));
    to += stride;
  }
}

Image wider(const Image &image, int width, const Filter &filter) {
  const int depth = image.channels;
  Image made{image.height, width, depth, {}};
  made.pixels.resize(static_cast<size_t>(image.height) * width * depth);
  const auto columns = sources(image.width, width, filter);
  for (size_t y = 0; y < static_cast<size_t>(image.height); ++y)
    for (int c = 0; c < depth; ++c)
      resize_axis(&image.pixels[y * image.width * depth + c], &made.pixels[y * width * depth + c],
                  columns, depth);
  return made;
}

Image higher(const Image &image, int height, const Filter &filter) {
  const int stride = image.width * image.channels;
  Image made{height, image.width, image.channels, {}};
  made.pixels.resize(static_cast<size_t>(height) * stride);
  const auto rows = sources(image.height, height, filter);
  for (int place = 0; place < stride; ++place)
    resize_axis(&image.pixels[place], &made.pixels[place], rows, stride);
  return made;
}

Image resized(const Image &image, int height, int width, const std::string &method) {
  const Filter filter = method == "bicubic" ? Filter{bicubic, 2} : Filter{bilinear, 1};
  // Pixels are rounded after each axis. The order of the axes is that of Pillow 13: before, the
  // rows always came first, which makes a difference of one level at most.
  const int fewer_rows = image.height - height, fewer_columns = image.width - width;
  if (fewer_rows > 0 && fewer_rows > 2 * fewer_columns)
    return wider(higher(image, height, filter), width, filter);
  return higher(wider(image, width, filter), height, filter);
}

// The centre of an image: `share` of each side.
Image cropped(const Image &image, double share) {
  const int top = static_cast<int>((image.height - image.height * share) / 2);
  const int left = static_cast<int>((image.width - image.width * share) / 2);
  Image part{image.height - 2 * top, image.width - 2 * left, image.channels, {}};
  for (int y = 0; y < part.height; ++y) {
    const auto row = image.pixels.begin() +
                     (static_cast<size_t>(y + top) * image.width + left) * image.channels;
    part.pixels.insert(part.pixels.end(), row, row + part.width * image.channels);
  }
  return part;
}

// Luma by ITU-R 601, in whole numbers as Pillow computes it.
Image gray(const Image &image) {
  Image one{image.height, image.width, 1, {}};
  for (size_t place = 0; place < image.pixels.size(); place += 3) {
    const uint8_t *rgb = &image.pixels[place];
    const int sum = rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000;
    one.pixels.push_back(static_cast<uint8_t>(sum >> 16));
  }
  return one;
}

// The real value of a pixel in a channel of the model.
float real_value(int pixel, int channel, const Contract &contract) {
  const double value = contract.low + pixel / 255.0 * (contract.high - contract.low);
  return static_cast<float>((value - contract.mean[channel]) / contract.std[channel]);
}

// The code of a real value.
int code(float value, const Tensor &tensor) {
  const float steps = value / tensor.scale;
  const bool is_unsigned = tensor.type == "uint8";
  // Halves of uint8 round up, a little below a half too: pixel p has the code p then.
  const float rounded = is_unsigned ? std::floor(steps + 0.501f) : std::nearbyint(steps);
  const float lowest = is_unsigned ? 0 : -128;
  return static_cast<int>(std::clamp(rounded + tensor.zero_point, lowest, lowest + 255));
}

}  // namespace

Image read_ppm(const std::string &path) {
  const std::string content = read_file(path);
  std::istringstream stream(content);
  auto number = [&stream] {
    // Comments stand between the numbers.
    while ((stream >> std::ws).peek() == '#')
      stream.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    int value = 0;
    stream >> value;
    return value;
  };
  char kind[2] = {};
  stream.read(kind, 2);
  Image image;
  image.width = number();
  image.height = number();
  const int most = number();
  constexpr int kLargest = 1 << 15;
  if (!stream || kind[0] != 'P' || kind[1] != '6' || most != 255 || image.width < 1 ||
      image.height < 1 || image.width > kLargest || image.height > kLargest)
    throw std::runtime_error(path + " is not a binary PPM of 8 bits (P6)");
  const size_t size = static_cast<size_t>(image.height) * image.width * 3;
  // One white space stands between the head and the pixels.
  const bool whole = stream.get() != std::istringstream::traits_type::eof();
  const size_t start = whole ? static_cast<size_t>(stream.tellg()) : content.size();
  if (content.size() - start < size) throw std::runtime_error(path + " is cut short");
  image.pixels.assign(content.begin() + start, content.begin() + start + size);
  return image;
}

int value_size(const Tensor &tensor) { return tensor.type == "float32" ? 4 : 1; }

Image visible(const Image &image, const Contract &contract) {
  Image part = cropped(image, contract.crop);
  if (contract.channels == "gray") part = gray(part);
  if (part.height != contract.height || part.width != contract.width)
    part = resized(part, contract.height, contract.width, contract.resize);
  if (contract.channels == "bgr")
    for (size_t start = 0; start < part.pixels.size(); start += 3)
      std::swap(part.pixels[start], part.pixels[start + 2]);
  return part;
}

std::vector<uint8_t> tensor(const Image &visible, const Contract &contract) {
  const int depth = visible.channels, places = visible.height * visible.width;
  const int size = value_size(contract.input);
  std::vector<uint8_t> raw(static_cast<size_t>(places) * depth * size);
  for (int channel = 0; channel < depth; ++channel)
    for (int place = 0; place < places; ++place) {
      const float value = real_value(visible.pixels[place * depth + channel], channel, contract);
      const int to = contract.channels_first ? channel * places + place : place * depth + channel;
      if (size == 4) std::memcpy(&raw[static_cast<size_t>(to) * 4], &value, 4);
      else raw[to] = static_cast<uint8_t>(code(value, contract.input));
    }
  return raw;
}

std::vector<uint8_t> prepare(const Image &image, const Contract &contract) {
  return tensor(visible(image, contract), contract);
}
