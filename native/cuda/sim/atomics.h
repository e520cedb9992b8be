// Atomics: threads of a block run one at a time and blocks one after the other, so a plain update will do.
#pragma once

#include <algorithm>

template <typename T>
T atomicExch(T* at, T value) {
  const T old = *at;
  *at = value;
  return old;
}
template <typename T>
T atomicAdd(T* at, T value) {
  return atomicExch(at, static_cast<T>(*at + value));
}
template <typename T>
T atomicMin(T* at, T value) {
  return atomicExch(at, std::min(*at, value));
}
template <typename T>
T atomicMax(T* at, T value) {
  return atomicExch(at, std::max(*at, value));
}
template <typename T>
T atomicCAS(T* at, T expected, T value) {
  return atomicExch(at, *at == expected ? value : *at);
}
