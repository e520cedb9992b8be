// A file that shrinks while it is mapped loses pages, and reading one of those raises SIGBUS, which ends a
// process. While a guard watches a map, such a read finds zeros instead, and the guard knows of it.
#pragma once

#include <cstddef>

namespace kotoba {

struct WatchedMap;

class MapGuard {
 public:
  MapGuard(std::byte* data, size_t bytes);
  ~MapGuard();
  MapGuard(const MapGuard&) = delete;
  MapGuard& operator=(const MapGuard&) = delete;

  bool lost_pages() const;

 private:
  WatchedMap* map_;
};

}  // namespace kotoba
