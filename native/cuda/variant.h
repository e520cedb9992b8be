// Choosing a kernel is data: the variants of an op are tables of kernels with what each would cost, the
// cheapest runs. KOTOBA_VARIANT=linear:split,dense:mma_64x64 forces variants by name, wherever they fit; with
// an exclamation mark, linear:split!, a problem that they do not fit is an error.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "context.h"

namespace kotoba::cuda {

template <typename Problem>
struct Variant {
  const char* name;
  double (*cost)(const Problem&);  // in the table's own unit; kUnfit where it cannot run
  void (*run)(const Context&, const Problem&);
};

constexpr double kUnfit = std::numeric_limits<double>::infinity();

// The name that KOTOBA_VARIANT gives for `op`; empty if none.
inline std::string_view forced_variant(std::string_view op) {
  const char* text = std::getenv("KOTOBA_VARIANT");
  for (std::string_view rest = text ? text : ""; !rest.empty();) {
    const std::string_view one = rest.substr(0, rest.find(','));
    rest.remove_prefix(one.size() < rest.size() ? one.size() + 1 : rest.size());
    if (one.substr(0, one.find(':')) == op && one.size() > op.size()) return one.substr(op.size() + 1);
  }
  return {};
}

template <typename Problem>
void run_variant(const Context& context, const char* op,
                 std::initializer_list<std::span<const Variant<Problem>>> tables, const Problem& problem) {
  std::string_view forced = forced_variant(op);
  const bool always = forced.ends_with('!');
  if (always) forced.remove_suffix(1);
  const Variant<Problem>* best = nullptr;
  double least = kUnfit;
  std::string names;
  bool known = forced.empty();
  for (const auto& table : tables)
    for (const Variant<Problem>& variant : table) {
      double cost = variant.cost(problem);
      if (variant.name == forced) {
        known = true;
        require(cost < kUnfit || !always, "KOTOBA_VARIANT: ", op, ": ", variant.name,
                " does not fit this problem");
        if (cost < kUnfit) cost = -1;
      }
      if (cost < least) {
        best = &variant;
        least = cost;
      }
      if (!known) names += std::string(names.empty() ? "" : ", ") + variant.name;
    }
  require(known, "KOTOBA_VARIANT: ", op, " has no variant ", std::string(forced), "; it has ", names);
  require(best, op, ": no kernel fits this problem");
  best->run(context, problem);
}

}  // namespace kotoba::cuda
