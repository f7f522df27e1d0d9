// Sixteen floats (Lanes), sixteen 32-bit integers (Ints), sixteen truth values (Mask) and thirty-two 16-bit
// integers (Shorts) on the instruction set that a unit is compiled for, and how many of them its registers
// hold.
//
// In an unnamed namespace, as all that is compiled once per instruction set: see simd/pick.h.
#pragma once
#if defined(ANNVQ_NEON)  // by CMakeLists.txt: every unit for 64-bit ARM may use it
#include "simd/lanes_neon.h"
#elif defined(__AVX512F__)
#include "simd/lanes_avx512.h"
#elif defined(__AVX2__)
#include "simd/lanes_avx2.h"
#else
#include "simd/lanes_generic.h"
#endif
