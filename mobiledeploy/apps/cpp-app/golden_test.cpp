// Replays the golden samples: the input, the answer and the inference must be those of the export.
//
// It says what differs and ends with 1. It runs in the app's folder.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "model.h"

namespace {

constexpr double kAllowedSteps = 2;  // of an output's quantization: other processors round otherwise
constexpr double kAllowedLevels = 1;  // of a pixel: versions of Pillow resize in another order
const char *const kSwapped = "the channels are swapped (RGB for BGR, or BGR for RGB)";
constexpr int kLevels = 255;         // the steps of a float output, within its range

using Numbers = std::vector<double>;

std::string three_digits(double value) {
  std::ostringstream text;
  text << std::setprecision(3) << value;
  return text.str();
}

Numbers numbers(const std::vector<uint8_t> &raw, const Tensor &tensor) {
  Numbers values(raw.size() / value_size(tensor));
  for (size_t place = 0; place < values.size(); ++place) {
    float real;
    if (tensor.type == "int8") values[place] = static_cast<int8_t>(raw[place]);
    else if (tensor.type == "uint8") values[place] = raw[place];
    else values[place] = (std::memcpy(&real, &raw[place * 4], 4), real);
  }
  return values;
}

double largest_error(const Numbers &one, const Numbers &other) {
  double largest = 0;
  for (size_t place = 0; place < one.size(); ++place)
    largest = std::max(largest, std::abs(one[place] - other[place]));
  return largest;
}

// A tensor by places and channels, as one of the other layout would have them.
Numbers turned(const Numbers &values, size_t depth, bool channels_first) {
  Numbers result(values.size());
  const size_t places = values.size() / depth;
  for (size_t place = 0; place < places; ++place)
    for (size_t channel = 0; channel < depth; ++channel) {
      const size_t last = place * depth + channel, first = channel * places + place;
      result[channels_first ? last : first] = values[channels_first ? first : last];
    }
  return result;
}

Numbers swapped(const Numbers &values, size_t depth) {
  Numbers result(values);
  for (size_t start = 0; start < values.size(); start += depth)
    std::reverse(result.begin() + start, result.begin() + start + depth);
  return result;
}

// How far numbers are off, for a sentence.
std::string amount(const Numbers &own, const Numbers &wanted) {
  double sum = 0;
  for (size_t place = 0; place < own.size(); ++place) sum += std::abs(own[place] - wanted[place]);
  return three_digits(sum / own.size()) + " off on the average, " +
         three_digits(largest_error(own, wanted)) + " at most)";
}

// What is wrong with the pixels that the model sees; "" if they are as recorded.
std::string pixel_difference(const Image &visible, const std::string &recorded) {
  if (visible.pixels.size() != recorded.size())
    return "the model sees " + std::to_string(visible.pixels.size()) + " numbers, not " +
           std::to_string(recorded.size());
  const Numbers own(visible.pixels.begin(), visible.pixels.end());
  Numbers wanted;
  for (unsigned char level : recorded) wanted.push_back(level);
  if (largest_error(own, wanted) <= kAllowedLevels) return "";
  if (largest_error(swapped(own, visible.channels), wanted) <= kAllowedLevels) return kSwapped;
  return "another crop, resize or image decoder (grey levels are " + amount(own, wanted);
}

// What is wrong with the input tensor of the recorded pixels; "" if it is as recorded.
std::string input_difference(const std::vector<uint8_t> &raw, const std::string &recorded,
                             const Contract &contract) {
  if (raw.size() != recorded.size())
    return "it has " + std::to_string(raw.size()) + " bytes, the model takes " +
           std::to_string(recorded.size());
  const size_t depth = contract.depth;
  Numbers own = numbers(raw, contract.input);
  Numbers wanted = numbers({recorded.begin(), recorded.end()}, contract.input);
  // Codes are exact; of floats the last digits may come from another order of the same sums.
  const bool whole = contract.input.type != "float32";
  const double exact = whole ? 0 : 1e-5 * largest_error(wanted, Numbers(wanted.size()));
  if (largest_error(own, wanted) <= exact) return "";
  if (largest_error(own, turned(wanted, depth, contract.channels_first)) <= exact)
    return contract.channels_first ? "the axes are not NCHW" : "the axes are not NHWC";
  if (contract.channels_first) {
    own = turned(own, depth, true);
    wanted = turned(wanted, depth, true);
  }
  if (largest_error(swapped(own, depth), wanted) <= exact) return kSwapped;
  if (!whole || largest_error(own, wanted) > 1)
    return "another input range, mean, std or zero point (values are " + amount(own, wanted);
  double off = 0;
  for (size_t place = 0; place < own.size(); ++place) off += own[place] != wanted[place];
  return std::to_string(std::lround(100 * off / own.size())) +
         "% of the codes are one off: another rounding";
}

bool near(const Numbers &one, const Numbers &other) {
  if (one.size() != other.size()) return false;
  for (size_t place = 0; place < one.size(); ++place)
    if (!(std::abs(one[place] - other[place]) <= 1e-6 + 1e-5 * std::abs(other[place]))) return false;
  return true;
}

Numbers flat(const std::vector<std::array<double, 4>> &boxes) {
  Numbers values;
  for (const auto &box : boxes) values.insert(values.end(), box.begin(), box.end());
  return values;
}

// The name of a field of an answer that differs; "" if none does.
std::string answer_difference(const Answer &own, const Answer &expected) {
  if (own.classes != expected.classes) return "classes";
  if (!near(own.scores, expected.scores)) return "scores";
  if (!near(flat(own.boxes), flat(expected.boxes))) return "boxes";
  if (!near(own.values, expected.values)) return "values";
  return own.size != expected.size || own.runs != expected.runs ? "mask" : "";
}

// The real values of each output of a sample, as at the export.
std::vector<Values> recorded_outputs(const Sample &sample, const Contract &contract) {
  std::vector<Values> outputs;
  for (size_t place = 0; place < contract.outputs.size(); ++place) {
    const std::string raw = read_file(sample.stem + ".output" + std::to_string(place) + ".bin");
    outputs.emplace_back(raw.size() / 4);
    std::memcpy(outputs.back().data(), raw.data(), outputs.back().size() * 4);
  }
  return outputs;
}

// The step of each output: that of its quantization, or a part of its range in the samples.
Numbers output_grid(const Contract &contract) {
  Numbers grid;
  for (size_t output = 0; output < contract.outputs.size(); ++output) {
    double low = INFINITY, high = -INFINITY;
    for (const Sample &sample : contract.samples) {
      const std::vector<Values> outputs = recorded_outputs(sample, contract);
      for (double value : outputs[output]) {
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
    const double largest = high > low ? high - low : std::abs(high) > 0 ? std::abs(high) : 1;
    const double scale = contract.outputs[output].scale;
    grid.push_back(scale > 0 ? scale : largest / kLevels);
  }
  return grid;
}

// How far the outputs are apart, in the steps of each.
double output_steps(const std::vector<Values> &own, const std::vector<Values> &expected,
                    const Numbers &grid, const Contract &contract) {
  const bool chosen = expected.size() == 4 && contract.task == "detection";
  double most = 0;
  for (size_t output = 0; output < expected.size(); ++output) {
    Numbers mine(own[output].begin(), own[output].end());
    Numbers theirs(expected[output].begin(), expected[output].end());
    if (mine.size() != theirs.size()) return INFINITY;
    if (chosen && output < 3) {
      // Behind the number of boxes the operator leaves whatever was in memory.
      const size_t count = static_cast<size_t>(expected[3][0]) * (output ? 1 : 4);
      mine.resize(std::min(count, mine.size()));
      theirs.resize(mine.size());
    }
    most = std::max(most, largest_error(mine, theirs) / grid[output]);
  }
  return most;
}

// What differs of one sample in the first stage that differs; "" if nothing does. Each stage gets
// what was recorded of the stage before it.
std::string difference(Model &model, const Sample &sample, const Numbers &grid) {
  const Contract &contract = model.contract;
  Image image = visible(read_ppm(sample.stem + ".ppm"), contract);
  const std::string pixels = read_file(sample.stem + ".pixels.bin");
  std::string wrong = pixel_difference(image, pixels);
  if (!wrong.empty()) return "the input differs: " + wrong;
  image.pixels.assign(pixels.begin(), pixels.end());
  const std::string input = read_file(sample.stem + ".input.bin");
  wrong = input_difference(tensor(image, contract), input, contract);
  if (!wrong.empty()) return "the input differs: " + wrong;
  const std::vector<Values> outputs = recorded_outputs(sample, contract);
  wrong = answer_difference(decode(outputs, contract), sample.answer);
  if (!wrong.empty())
    return "the answer to the recorded outputs differs in " + wrong + ": see decode.cpp";
  const std::vector<Values> own = model.outputs({input.begin(), input.end()});
  const double steps = output_steps(own, outputs, grid, contract);
  if (steps <= kAllowedSteps) return "";
  return "the outputs differ by " + three_digits(steps) + " steps, " + three_digits(kAllowedSteps) +
         " are allowed: another model file, another runtime, or outputs that are read wrongly";
}

}  // namespace

int main() try {
  Model model(".");
  const Numbers grid = output_grid(model.contract);
  int differences = 0;
  for (const Sample &sample : model.contract.samples) {
    const std::string line = difference(model, sample, grid);
    differences += !line.empty();
    if (!line.empty()) std::cout << sample.stem << ".ppm: " << line << "\n";
  }
  if (!differences) std::cout << "pass: the golden samples are replayed\n";
  return differences ? 1 : 0;
} catch (const std::exception &error) {
  std::cerr << error.what() << "\n";
  return 1;
}
