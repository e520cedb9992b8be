// What every op gets: where to run and where to find memory.
#pragma once

#include "memory_pool.h"
#include "stream.h"

namespace kotoba::cuda {

struct Context {
  const Stream& stream;
  MemoryPool& pool;
  int arch;  // 10 * major + minor of the compute capability
  int multiprocessors;
};

}  // namespace kotoba::cuda
