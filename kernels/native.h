// What each operation adds to the one native module.
#pragma once
#include <nanobind/nanobind.h>

void register_segment_stats(nanobind::module_& m);
void register_slic(nanobind::module_& m);
void register_nnls(nanobind::module_& m);
void register_idw(nanobind::module_& m);
void register_tiles(nanobind::module_& m);
