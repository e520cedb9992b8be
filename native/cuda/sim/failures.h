// What can be wrong with a GPU, played. KOTOBA_SIM=old_driver or a list, as in lost_after:40,memory:64. It is
// read whenever somebody looks for GPUs; `lost` stays, as on a GPU, until the process ends.
//   no_driver, old_driver, no_gpu, busy   what cudaGetDeviceCount finds
//   old_card, no_kernels                  a card that is too old; one that this build has no kernels for
//   memory:N                              N MiB on the card
//   lost_after:N                          the Nth kernel from now on takes the GPU with it
#pragma once

#include <cstddef>

#include "runtime.h"

namespace kotoba::sim {

void read_failures();
cudaError_t missing_gpu();  // what looking for GPUs finds
int driver_version();
int card_major();
bool has_kernels();
size_t card_memory();  // bytes

void set_fault(const char* text);  // what cudaErrorLaunchFailure was
cudaError_t lost();                // what every call returns once the GPU is lost; success before
void count_launch();               // of a kernel that begins

}  // namespace kotoba::sim
