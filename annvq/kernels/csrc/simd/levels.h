// Which instruction sets this machine has, and which one the kernels use.
#pragma once
#include <string>
#include <vector>

namespace annvq {

enum class SimdLevel { generic = 0, avx2 = 1, avx512 = 2, avx512vbmi = 3 };

const char* simd_name(SimdLevel level);
SimdLevel best_simd_level();                   // the highest this machine can run
std::vector<std::string> available_levels();   // lowest first
SimdLevel simd_level();                        // in use: the best one, or what ANNVQ_SIMD names
void set_simd_level(const std::string& name);  // std::invalid_argument when unknown or not available

}  // namespace annvq
