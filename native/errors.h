// Coded errors. Every failure below the bindings is an `Error`; its code is one of src/errors.ts.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace kotoba {

class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const noexcept { return code_; }

 private:
  const char* code_;  // a string literal
};

namespace detail {
template <typename... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}
}  // namespace detail

// Throws ERR_ARGUMENT with the concatenated parts unless `ok`: require(a == b, "linear: expected ", a, ", got
// ", b).
template <typename... Parts>
void require(bool ok, const Parts&... parts) {
  if (!ok) throw Error("ERR_ARGUMENT", detail::join(parts...));
}

}  // namespace kotoba
