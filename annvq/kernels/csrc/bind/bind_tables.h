// Tables of queries that are built when a scan wants them.
#pragma once
#include <optional>

#include "bind/bind.h"
#include "tables/tables.h"

namespace annvq {

struct LazyTables {
    nb::object owner;  // of builder
    const TableBuilder* builder;
    In<float, 2> queries;
    bool squared;
    double scale;
    std::optional<In<float, 2>> offsets;

    UnbuiltTables tables() const {
        return {builder,
                queries.data(),
                static_cast<int64_t>(queries.shape(1)),
                squared,
                static_cast<float>(scale),
                offsets ? offsets->data() : nullptr};
    }
};

}  // namespace annvq
