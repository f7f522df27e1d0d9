// What look-ups cost on this machine.
#pragma once
#include "scan/kernels.h"

namespace annvq {

// What a level's filters take on this machine, ns per column of a superblock; measured on first use.
struct FilterCosts {
    double column[8];
};
const FilterCosts& filter_costs(const ScanKernels& kernels);
// What the cheapest filter of the level in use takes, ns per code; 0 where it has none.
double lookup_ns();

}  // namespace annvq
