// Choosing a kernel is data: the variants of an op are a table, best first, the last one takes every problem.
// KOTOBA_VARIANT=linear:simt_64x64,attention:… forces variants by name, wherever they fit.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

#include "context.h"

namespace kotoba::cuda {

template <typename Problem>
struct Variant {
  const char* name;
  bool (*fits)(const Problem&);
  void (*run)(const Context&, const Problem&);
};

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

template <typename Problem, size_t kCount>
void run_variant(const Context& context, const char* op, const Variant<Problem> (&variants)[kCount],
                 const Problem& problem) {
  const std::string_view forced = forced_variant(op);
  bool known = forced.empty();
  const Variant<Problem>* best = nullptr;
  for (const Variant<Problem>& variant : variants) {
    if (!best && variant.fits(problem)) best = &variant;
    if (variant.name != forced) continue;
    known = true;
    if (variant.fits(problem)) return variant.run(context, problem);
  }
  if (!known) {
    std::string names;
    for (const Variant<Problem>& variant : variants)
      names += std::string(names.empty() ? "" : ", ") + variant.name;
    throw Error("ERR_ARGUMENT", detail::join("KOTOBA_VARIANT: ", op, " has no variant ", std::string(forced),
                                             "; it has ", names));
  }
  best->run(context, problem);
}

}  // namespace kotoba::cuda
