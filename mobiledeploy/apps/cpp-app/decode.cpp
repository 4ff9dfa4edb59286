#include "decode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

#include "preprocess.h"

namespace {

constexpr size_t kBest = 5, kMostBoxes = 100;
constexpr double kOverlap = 0.6;  // of two boxes of one class, by IoU: beyond it the better one stays
constexpr double kLargestGrowth = 10;

using Box = std::array<double, 4>;  // left, top, right, bottom

// The places of `scores`, best first; of equal scores the lower place comes first.
std::vector<int> ranked(const std::vector<double> &scores) {
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  return order;
}

Answer best(const std::vector<double> &scores) {
  Answer answer;
  for (int place : ranked(scores)) {
    if (answer.classes.size() == kBest) break;
    answer.classes.push_back(place);
    answer.scores.push_back(scores[place]);
  }
  return answer;
}

std::vector<double> doubles(const Values &values) { return {values.begin(), values.end()}; }

// Sigmoids of an output, unless it ends in them.
std::vector<double> probabilities(const Values &values, const Tensor &end) {
  std::vector<double> result = doubles(values);
  if (end.activation != "sigmoid")
    for (double &x : result) x = (x >= 0 ? 1 : std::exp(x)) / (1 + std::exp(-std::abs(x)));
  return result;
}

// No (class 0) or yes (class 1); `values` is the probability of yes.
Answer binary(const Values &values, const Tensor &end) {
  const double chance = probabilities(values, end)[0];
  Answer answer = best({1 - chance, chance});
  answer.values = {chance};
  return answer;
}

Answer multilabel(const Values &values, const Tensor &end) {
  const std::vector<double> chances = probabilities(values, end);
  Answer answer = best(chances);
  answer.values = chances;
  return answer;
}

Answer segmentation(const Values &values, const Tensor &end) {
  Answer answer;
  answer.size = {end.shape[0], end.shape[1]};
  const int depth = end.shape[2];
  const float threshold = end.activation == "sigmoid" ? 0.5f : 0;
  for (size_t start = 0; start < values.size(); start += depth) {
    const auto pixel = values.begin() + start;
    const int class_ = depth == 1 ? *pixel > threshold
                                  : static_cast<int>(std::max_element(pixel, pixel + depth) - pixel);
    if (answer.runs.empty() || answer.runs[answer.runs.size() - 2] != class_)
      answer.runs.insert(answer.runs.end(), {class_, 0});
    ++answer.runs.back();
  }
  return answer;
}

bool finite(const Box &box) {
  return std::all_of(box.begin(), box.end(), [](double x) { return std::isfinite(x); });
}

// A box whose right and bottom are not before its left and top.
Box upright(Box box) {
  box[2] = std::max(box[0], box[2]);
  box[3] = std::max(box[1], box[3]);
  return box;
}

double area(const Box &box) { return (box[2] - box[0]) * (box[3] - box[1]); }

// The intersection over union; 1 for equal boxes.
double iou(const Box &one, const Box &other) {
  if (one == other) return 1;
  const double width = std::min(one[2], other[2]) - std::max(one[0], other[0]);
  const double height = std::min(one[3], other[3]) - std::max(one[1], other[1]);
  const double both = std::max(width, 0.0) * std::max(height, 0.0);
  const double either = area(one) + area(other) - both;
  return either > 0 ? both / either : both;
}

// [N] boxes of the offsets (ty, tx, th, tw) from anchors.
std::vector<Box> from_anchors(const Values &offsets, const Contract &contract) {
  std::vector<Box> boxes;
  const float *t = offsets.data();
  const auto &scales = contract.anchor_scales;
  for (const AnchorLevel &level : contract.anchors)
    for (int row = 0; row < level.rows; ++row)
      for (int column = 0; column < level.columns; ++column)
        for (const auto &[height, width] : level.sizes) {
          const double y = t[0] / scales[0] * height + (row + 0.5) / level.rows;
          const double x = t[1] / scales[1] * width + (column + 0.5) / level.columns;
          const double half_height =
              height * std::exp(std::min(t[2] / scales[2], kLargestGrowth)) / 2;
          const double half_width = width * std::exp(std::min(t[3] / scales[3], kLargestGrowth)) / 2;
          boxes.push_back({x - half_width, y - half_height, x + half_width, y + half_height});
          t += 4;
        }
  return boxes;
}

// The outputs of TFLite_Detection_PostProcess: boxes, classes, scores, and their number.
Answer chosen_by_the_model(const std::vector<Values> &outputs) {
  // What is behind that number is whatever was in memory.
  const float told = outputs[3][0];
  const size_t count = std::isfinite(told) && told > 0
                           ? std::min(static_cast<size_t>(told), outputs[2].size())
                           : 0;
  Answer answer;
  for (int place : ranked({outputs[2].begin(), outputs[2].begin() + count})) {
    const float *b = &outputs[0][place * 4];
    const Box box = upright({b[1], b[0], b[3], b[2]});
    const float score = outputs[2][place], class_ = outputs[1][place];
    if (!(score > 0) || !finite(box) || !std::isfinite(class_)) continue;
    answer.boxes.push_back(box);
    answer.scores.push_back(score);
    answer.classes.push_back(static_cast<int>(std::nearbyint(class_)));
    if (answer.boxes.size() == kMostBoxes) break;
  }
  return answer;
}

Answer detection(const std::vector<Values> &outputs, const Contract &contract) {
  if (outputs.size() == 4) return chosen_by_the_model(outputs);
  const size_t boxes_at = contract.outputs[0].shape.back() == 4 ? 0 : 1;
  const Values &offsets = outputs[boxes_at], &table = outputs[1 - boxes_at];
  std::vector<Box> boxes;
  if (contract.anchors.empty())
    for (size_t place = 0; place + 3 < offsets.size(); place += 4) {
      const float *b = &offsets[place];
      boxes.push_back({b[0], b[1], b[2], b[3]});
    }
  else
    boxes = from_anchors(offsets, contract);
  const size_t classes = table.size() / boxes.size();
  std::vector<double> scores = doubles(table);
  for (size_t row = 0; row < boxes.size(); ++row) {
    boxes[row] = upright(boxes[row]);
    if (!finite(boxes[row])) std::fill_n(scores.begin() + row * classes, classes, 0);
  }
  // Non-maximum suppression for each class.
  std::vector<std::pair<size_t, int>> kept;
  Answer answer;
  for (int place : ranked(scores)) {
    if (!(scores[place] > 0) || kept.size() == kMostBoxes) break;
    const size_t row = place / classes;
    const int class_ = static_cast<int>(place % classes);
    const bool hidden = std::any_of(kept.begin(), kept.end(), [&](const auto &other) {
      return other.second == class_ && iou(boxes[row], boxes[other.first]) > kOverlap;
    });
    if (hidden) continue;
    kept.emplace_back(row, class_);
    Box box = boxes[row];
    if (!contract.anchors.empty())
      for (double &side : box) side = std::clamp(side, 0.0, 1.0);
    answer.boxes.push_back(box);
    answer.classes.push_back(class_);
    answer.scores.push_back(scores[place]);
  }
  return answer;
}

}  // namespace

Values real(const std::vector<uint8_t> &raw, const Tensor &tensor, bool channels_first) {
  const int size = value_size(tensor);
  Values values(raw.size() / size);
  for (size_t place = 0; place < values.size(); ++place) {
    if (size == 4) {
      std::memcpy(&values[place], &raw[place * 4], 4);
      continue;
    }
    const int code = tensor.type == "int8" ? static_cast<int8_t>(raw[place]) : raw[place];
    values[place] = static_cast<float>(code - tensor.zero_point) * tensor.scale;
  }
  if (!channels_first || tensor.shape.size() != 3) return values;
  const size_t depth = tensor.shape[2], places = values.size() / depth;
  Values last(values.size());
  for (size_t place = 0; place < places; ++place)
    for (size_t channel = 0; channel < depth; ++channel)
      last[place * depth + channel] = values[channel * places + place];
  return last;
}

Answer decode(const std::vector<Values> &outputs, const Contract &contract) {
  const Values &first = outputs[0];
  const Tensor &end = contract.outputs[0];
  if (contract.task == "classification") return best(doubles(first));
  if (contract.task == "binary") return binary(first, end);
  if (contract.task == "multilabel") return multilabel(first, end);
  if (contract.task == "segmentation") return segmentation(first, end);
  if (contract.task == "detection") return detection(outputs, contract);
  // A regression's numbers, or the vector of an embedding.
  Answer answer;
  answer.values = doubles(first);
  return answer;
}
