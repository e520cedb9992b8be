// What the 32 threads of a warp do together: shuffles, votes, barriers. Every named lane has to come.
#pragma once

#include <bit>
#include <concepts>

#include "block.h"

namespace kotoba::sim {

// work(lane, parts) for every lane of `mask`, once all of them are here. Part is what each lane brings.
template <typename Part, typename Work>
void warp_together(unsigned mask, Part& part, const char* what, const std::source_location& at, Work work) {
  Thread& thread = *current_thread;
  if ((mask >> thread.lane() & 1) == 0) fault(std::string(what) + ": the mask leaves out the calling lane");
  const unsigned warp = thread.rank / 32;
  Meeting& meeting = current_block->warp_meeting(warp, mask);
  meet(meeting, static_cast<unsigned>(std::popcount(mask)), thread.lane(), &part, what, at,
       [&](void** parts) {
         for (unsigned lane = 0; lane < 32; ++lane)
           if (mask >> lane & 1) work(lane, reinterpret_cast<Part**>(parts));
       });
}

template <typename T>
struct Exchange {
  T in;
  unsigned from;  // lane
  T out;
};

// The value that lane `from` brought. Reading a lane outside of the mask is an error.
template <typename T>
T shuffle(unsigned mask, T value, unsigned from, const char* what, const std::source_location& at) {
  Exchange<T> mine{value, from, value};
  warp_together(mask, mine, what, at, [&](unsigned lane, Exchange<T>** all) {
    const unsigned source = all[lane]->from;
    if ((mask >> source & 1) == 0) fault(std::string(what) + ": reads a lane outside of the mask");
    all[lane]->out = all[source]->in;
  });
  return mine.out;
}

struct Vote {
  bool in;
  unsigned out;
};

inline unsigned ballot(unsigned mask, bool predicate, const char* what, const std::source_location& at) {
  Vote mine{predicate, 0};
  warp_together(mask, mine, what, at, [&](unsigned lane, Vote** all) {
    unsigned votes = 0;
    for (unsigned other = 0; other < 32; ++other)
      if (mask >> other & 1) votes |= unsigned{all[other]->in} << other;
    all[lane]->out = votes;
  });
  return mine.out;
}

}  // namespace kotoba::sim

#define KOTOBA_HERE const std::source_location& at = std::source_location::current()

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, KOTOBA_HERE) {
  const unsigned own = kotoba::sim::current_thread->lane(), w = static_cast<unsigned>(width);
  return kotoba::sim::shuffle(mask, value, own / w * w + static_cast<unsigned>(lane) % w, "__shfl_sync", at);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, KOTOBA_HERE) {
  const unsigned own = kotoba::sim::current_thread->lane(), from = own ^ static_cast<unsigned>(bits);
  const bool inside = from / static_cast<unsigned>(width) <= own / static_cast<unsigned>(width);
  return kotoba::sim::shuffle(mask, value, inside ? from : own, "__shfl_xor_sync", at);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, KOTOBA_HERE) {
  const unsigned own = kotoba::sim::current_thread->lane(), w = static_cast<unsigned>(width);
  return kotoba::sim::shuffle(mask, value, own % w + delta < w ? own + delta : own, "__shfl_down_sync", at);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, KOTOBA_HERE) {
  const unsigned own = kotoba::sim::current_thread->lane(), w = static_cast<unsigned>(width);
  return kotoba::sim::shuffle(mask, value, own % w >= delta ? own - delta : own, "__shfl_up_sync", at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, KOTOBA_HERE) {
  return kotoba::sim::ballot(mask, predicate != 0, "__ballot_sync", at);
}
inline int __any_sync(unsigned mask, int predicate, KOTOBA_HERE) {
  return kotoba::sim::ballot(mask, predicate != 0, "__any_sync", at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, KOTOBA_HERE) {
  return kotoba::sim::ballot(mask, predicate != 0, "__all_sync", at) == mask;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, KOTOBA_HERE) {
  int nothing = 0;
  kotoba::sim::warp_together(mask, nothing, "__syncwarp", at, [](unsigned, int**) {});
}

#undef KOTOBA_HERE
