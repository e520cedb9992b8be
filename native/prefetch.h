// Reads ranges of a mapped file into the page cache ahead of their first use, on a thread of its own: the
// kernel blocks whoever asks while it queues gigabytes of reads, and page faults alone read little at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "mapped_file.h"

namespace kotoba {

struct ByteRange {
  int64_t offset = 0;
  int64_t bytes = 0;
};

// In the order given; stops when nobody else holds the file any more. Does nothing if the ranges would take
// more than half of the memory that is available: they would push each other out again.
void prefetch(std::shared_ptr<MappedFile> file, std::vector<ByteRange> ranges);

}  // namespace kotoba
