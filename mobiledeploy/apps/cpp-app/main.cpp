// Answers images by the model of the app in this folder.
//
//     build/app photo.ppm ...                      a line of JSON for each image
//     build/app --inputs tensors.npz photo.ppm ... the model's inputs, an array for each image
#include <cstdio>
#include <exception>
#include <iostream>
#include <limits>

#include "model.h"
#include "npz.h"

namespace {

std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (unsigned char c : text) {
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
    if (c == '"' || c == '\\' || c < ' ') result += escaped;
    else result += static_cast<char>(c);
  }
  return result + "\"";
}

template <typename List, typename Print>
void field(const char *name, const List &list, Print print) {
  std::cout << ", \"" << name << "\": [";
  for (size_t place = 0; place < list.size(); ++place) {
    if (place) std::cout << ", ";
    print(list[place]);
  }
  std::cout << "]";
}

void say(const std::string &name, const Answer &answer, const std::vector<std::string> &labels) {
  const auto plain = [](auto value) { std::cout << value; };
  std::cout << "{\"image\": " << quoted(name);
  if (!answer.size[0] && (!answer.classes.empty() || answer.values.empty())) {
    field("classes", answer.classes, plain);
    field("scores", answer.scores, plain);
    if (!labels.empty())
      field("labels", answer.classes, [&](int class_) {
        const bool named = class_ >= 0 && static_cast<size_t>(class_) < labels.size();
        std::cout << quoted(named ? labels[class_] : std::to_string(class_));
      });
  }
  if (!answer.boxes.empty())
    field("boxes", answer.boxes, [](const std::array<double, 4> &b) {
      std::cout << "[" << b[0] << ", " << b[1] << ", " << b[2] << ", " << b[3] << "]";
    });
  if (!answer.values.empty()) field("values", answer.values, plain);
  if (answer.size[0]) {
    std::cout << ", \"mask\": {\"size\": [" << answer.size[0] << ", " << answer.size[1] << "]";
    field("runs", answer.runs, plain);
    std::cout << "}";
  }
  std::cout << "}\n";
}

// The name of an image without its folder and its suffix.
std::string stem(const std::string &path) {
  const size_t slash = path.rfind('/'), start = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(start, path.rfind('.') - start);
}

}  // namespace

int main(int count, char **arguments) try {
  const std::vector<std::string> given(arguments + 1, arguments + count);
  const bool inputs = !given.empty() && given[0] == "--inputs";
  const size_t first = inputs ? 2 : 0;
  if (given.size() <= first || given[first].rfind("-", 0) == 0) {
    std::cerr << "usage: app [--inputs FILE.npz] IMAGE.ppm... (in the app's folder)\n";
    return 2;
  }
  std::cout.precision(std::numeric_limits<float>::max_digits10);
  Model model(".");
  std::vector<Array> arrays;
  for (size_t place = first; place < given.size(); ++place) {
    const Image image = read_ppm(given[place]);
    if (inputs) arrays.push_back({stem(given[place]), prepare(image, model.contract)});
    else say(given[place], model.answer(image), model.contract.labels);
  }
  if (inputs) write_npz(given[1], arrays, model.contract);
  return 0;
} catch (const std::exception &error) {
  std::cerr << error.what() << "\n";
  return 1;
}
