// The byte instructions that GGUF kernels are made of, and words cut out of unaligned places.
#include "../../quant_words.cuh"
#include "testing.h"

namespace kotoba::sim {
namespace {

namespace ptx = cuda::ptx;
using testing::DeviceArray;
using testing::expect;
using testing::expect_fault;
using testing::fault_of;

SIM_TEST(byte_perm_chooses_among_eight_bytes) {
  expect(__byte_perm(0x33221100u, 0x77665544u, 0x7041) == 0x77004411u, "bytes 1, 4, 0, 7");
  expect(__byte_perm(0x33221100u, 0x77665544u, 0xfffff) == 0x77777777u, "only three bits of a selector");
}

SIM_TEST(funnelshift_cuts_a_word_out_of_two) {
  expect(__funnelshift_r(0x33221100u, 0x77665544u, 8) == 0x44332211u, "one byte further");
  expect(__funnelshift_r(0x33221100u, 0x77665544u, 32) == 0x33221100u, "five bits of the distance");
}

SIM_TEST(f16_to_f32_of_every_kind_of_number) {
  expect(ptx::f16_to_f32(0x3c01) == 1 + 0x1p-10f && ptx::f16_to_f32(0x8001) == -0x1p-24f, "numbers");
  expect(ptx::f16_to_f32(0xfc00) == -INFINITY && std::isnan(ptx::f16_to_f32(0x7e00)), "what is no number");
}

SIM_TEST(tables_of_16_bytes_are_looked_up_by_nibbles) {
  constexpr int8_t values[16] = {0, -1, -2, -3, -4, -5, -6, -7, 8, 9, 10, 11, 12, 13, 14, 15};
  uint32_t low, high;
  cuda::look_up(cuda::make_table(values, 2, 64), 0xf0873a12u, low, high);
  expect(low == 0x4032543cu, "the low nibbles 2, a, 7, 0");
  expect(high == 0x5e503a3eu, "the high nibbles 1, 3, 8, f");
}

template <int kAlign, bool kMore>
void read_words(uint32_t* out, const std::byte* x, int offset) {
  uint32_t words[3];
  cuda::load_words<kAlign, 0, 3, kMore>(x + offset, words);
  for (int i = 0; i < 3; ++i) out[i] = words[i];
}

SIM_TEST(words_from_any_address_up_to_the_end_of_a_buffer) {
  std::vector<uint8_t> bytes(64);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(3 * i + 1);
  const DeviceArray<uint8_t> x(bytes);
  const DeviceArray<uint32_t> out(std::vector<uint32_t>(3, 0));
  const cuda::Stream stream;
  for (int offset = 40; offset <= 52; ++offset) {
    cuda::launch(stream, {"read", 1, 1}, read_words<1, false>, out.get(),
                 reinterpret_cast<const std::byte*>(x.get()), offset);
    const std::vector<uint32_t> got = out.back(stream);
    for (size_t i = 0; i < 12; ++i)
      expect((got[i / 4] >> i % 4 * 8 & 255) == bytes[static_cast<size_t>(offset) + i], "byte by byte");
  }
}

SIM_TEST(words_that_may_touch_the_next_one_fault_at_the_end_of_a_buffer) {
  const DeviceArray<uint8_t> x(std::vector<uint8_t>(64, 1));
  const DeviceArray<uint32_t> out(std::vector<uint32_t>(3, 0));
  expect_fault(
      fault_of(read_words<2, true>, 1, 1, 0, out.get(), reinterpret_cast<const std::byte*>(x.get()), 52),
      "past the end of a buffer");
}

}  // namespace
}  // namespace kotoba::sim
