// What the 32 threads of a warp do together. All of them have to come: a mask that leaves some out is not
// simulated.
#pragma once

#include "block.h"

namespace kotoba::sim {

using Here = std::source_location;
constexpr unsigned kWholeWarp = 0xffffffffu;

// True for the last thread of the warp to come, which works on what all of them brought.
inline bool meet_warp(unsigned mask, void* part, const char* what, Here at) {
  if (mask != kWholeWarp) fault(std::string(what) + ": the mask leaves out lanes");
  return current_block->meet(current_block->warp(), part, what, at);
}

// The value that lane `from` brought.
template <typename T>
T shuffle(unsigned mask, T value, unsigned from, const char* what, Here at) {
  struct Exchange {
    T in;
    unsigned from;
    T out;
  } mine{value, from % 32, {}};
  if (meet_warp(mask, &mine, what, at)) {
    const Parts<Exchange> all{current_block->warp().first};
    for (unsigned lane = 0; lane < 32; ++lane) all[lane].out = all[all[lane].from].in;
  }
  return mine.out;
}

}  // namespace kotoba::sim

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, kotoba::sim::Here at = kotoba::sim::Here::current()) {
  return kotoba::sim::shuffle(mask, value, static_cast<unsigned>(lane), "__shfl_sync", at);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, kotoba::sim::Here at = kotoba::sim::Here::current()) {
  const unsigned from = kotoba::sim::current_thread->rank ^ static_cast<unsigned>(bits);
  return kotoba::sim::shuffle(mask, value, from, "__shfl_xor_sync", at);
}

// Bit i: lane i's predicate.
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              kotoba::sim::Here at = kotoba::sim::Here::current()) {
  using namespace kotoba::sim;
  struct Vote {
    bool in;
    unsigned out;
  } mine{predicate != 0, 0};
  if (meet_warp(mask, &mine, "__ballot_sync", at)) {
    const Parts<Vote> all{current_block->warp().first};
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) votes |= unsigned{all[lane].in} << lane;
    for (unsigned lane = 0; lane < 32; ++lane) all[lane].out = votes;
  }
  return mine.out;
}

inline void __syncwarp(unsigned mask = kotoba::sim::kWholeWarp,
                       kotoba::sim::Here at = kotoba::sim::Here::current()) {
  kotoba::sim::meet_warp(mask, nullptr, "__syncwarp", at);
}
