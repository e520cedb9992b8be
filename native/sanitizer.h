// Whether AddressSanitizer watches this build (bench/fuzz). It sees overruns and late uses only of memory
// that was allocated for one tensor, so the places that would share or keep memory do not in such a build.
#pragma once

namespace kotoba {

#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

}  // namespace kotoba
