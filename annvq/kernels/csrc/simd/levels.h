// SIMD levels: sets of instructions that kernels are written for. Which of them this machine has, and which
// is in use.
#pragma once
#include <string>
#include <vector>

namespace annvq {

struct Level {
    const char* name;
    bool (*has_instructions)();  // this machine
    const char* fallback;  // the level whose kernels stand in for those that this one lacks; nullptr: none
};

// Levels are known by their numbers, which mean nothing else: no level includes another.
int level_count();
int level_number(const std::string& name);  // -1: unknown
const char* level_name(int level);
int fallback_of(int level);  // -1: none

std::vector<std::string> available_levels();   // that this machine can run, the best one last
int simd_level();                              // in use: the best one, or what set_simd_level() named
void set_simd_level(const std::string& name);  // std::invalid_argument when unknown or not available

}  // namespace annvq
