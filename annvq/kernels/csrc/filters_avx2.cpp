#define ANNVQ_ISA blocks_avx2
#include "filters_shuffle.h"

namespace annvq {
namespace {

using namespace ANNVQ_ISA;
constexpr PooledFilter kFilters[] = {
    {16, filter<16>}, {32, filter<32>}, {64, filter<64>}, {128, filter<128>}, {256, filter<256>}};

}  // namespace

const BlockKernels kBlocksAvx2{
    least, quantize, arrange, kFilters, 5, 2, filter_nibbles<false>, filter_nibbles<true>};

}  // namespace annvq
