// The simulated cards and their driver, and what can be wrong with them. KOTOBA_SIM=old_driver or a list, as
// in lost_after:40,memory:64. It is read whenever somebody looks for GPUs; `lost` stays, as on a GPU, until
// the process ends.
//   no_driver, old_driver, no_gpu, busy   what cudaGetDeviceCount finds
//   old_card, no_kernels                  a card that is too old; one that this
//   build has no kernels for memory:N                              N MiB on the
//   card lost_after:N                          the Nth kernel from now on takes
//   the GPU with it
#pragma once

#include <cstddef>

namespace kotoba::sim {

size_t card_memory();  // bytes
bool has_kernels();
bool is_lost();       // from then on, every call fails with cudaErrorIllegalAddress
void count_launch();  // of a kernel that begins

}  // namespace kotoba::sim
