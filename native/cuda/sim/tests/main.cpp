// Without arguments: names of all tests, one a line. With a name: runs that test, 0 if it passed.
#include <cstdio>
#include <cstring>

#include "testing.h"

namespace kotoba::sim::testing {
std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
}  // namespace kotoba::sim::testing

int main(int count, char** arguments) {
  using kotoba::sim::testing::tests;
  if (count < 2) {
    for (const auto& test : tests()) std::printf("%s\n", test.name);
    return 0;
  }
  for (const auto& test : tests()) {
    if (std::strcmp(test.name, arguments[1]) != 0) continue;
    try {
      test.run();
      return 0;
    } catch (const std::exception& error) {
      std::printf("%s: %s\n", test.name, error.what());
      return 1;
    }
  }
  std::printf("there is no test %s\n", arguments[1]);
  return 2;
}
