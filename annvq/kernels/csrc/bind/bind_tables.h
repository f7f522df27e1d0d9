// Tables of queries that are built when a scan wants them.
#pragma once
#include <optional>

#include "bind/bind.h"
#include "tables/tables.h"

namespace annvq {

struct Unbuilt {
    nb::object owner;  // of builder
    const TableBuilder* builder;
    In<float, 2> queries;
    bool squared;
    float scale;
    std::optional<In<float, 2>> offsets;

    UnbuiltTables tables() const {
        return {builder, queries.data(), static_cast<int64_t>(queries.shape(1)),
                squared, scale,          offsets ? offsets->data() : nullptr};
    }
};

}  // namespace annvq
