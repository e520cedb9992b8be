// What the decoders need outside the instruction-set namespaces.
#define KOTOBA_ISA plain
#include "decode.h"

#include "../errors.h"

namespace kotoba::cpu {

void throw_no_decoder(DType dtype) {
  throw Error("ERR_ARGUMENT",
              detail::join("decode: expected weights of a float or GGUF type, got ", info(dtype).name));
}

}  // namespace kotoba::cpu
