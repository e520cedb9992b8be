// What every op gets: where to run and where to find memory.
#pragma once

#include "memory_pool.h"
#include "stream.h"
#include "weight_forms.h"

namespace kotoba::cuda {

struct Context {
  const Stream& stream;
  MemoryPool& pool;
  WeightForms& forms;
  int arch;  // 10 * major + minor of the compute capability
  int multiprocessors;
};

}  // namespace kotoba::cuda
