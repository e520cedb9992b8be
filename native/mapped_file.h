// A read-only memory map of a whole file; files over 4 GiB are fine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "map_guard.h"

namespace kotoba {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // ERR_FILE_NOT_FOUND, ERR_FILE_READ
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Whether the file still has every byte that was mapped. What was read of the lost ones is zeros.
  bool intact() const;
  // Asks the kernel to read a range ahead of its first use.
  void will_need(int64_t offset, int64_t bytes) const;
  // Gives the pages that lie wholly in a range back; reading them again is right, and slower.
  void forget(int64_t offset, int64_t bytes) const;

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  int fd_ = -1;
  std::optional<MapGuard> guard_;
};

}  // namespace kotoba
