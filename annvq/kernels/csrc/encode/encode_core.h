// The encoders' inner loops (*_core.h), compiled once per instruction set. See simd/pick.h for what holds in
// such files.
#pragma once
#include "encode/beam_core.h"
#include "encode/iterated_core.h"
#include "encode/kernels.h"
#include "encode/local_core.h"
#include "encode/network_core.h"
#include "encode/norm_core.h"
#include "encode/products_core.h"

namespace annvq {
namespace {

constexpr EncodeKernels kKernels{products,
                                 argmin,
                                 beam_scratch,
                                 beam_block,
                                 local_search_scratch,
                                 local_search_block,
                                 norm_search_scratch,
                                 norm_search_block,
                                 products_to_shorts,
                                 iterated_block,
                                 network_scratch,
                                 network_hidden,
                                 network_decode,
                                 network_sweep,
                                 network_aim};

}  // namespace
}  // namespace annvq
