// What is said of scores that cannot be ordered. Who searches an index gives queries, not tables.
#pragma once

namespace annvq {

constexpr const char* kTablesRefused =
    "tables must hold no NaN and no -inf: queries, codebooks and their products must be finite in float32";
constexpr const char* kBiasRefused =
    "bias must hold no NaN and no -inf: queries, centroids and their products must be finite in float32";

}  // namespace annvq
