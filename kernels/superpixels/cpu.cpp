// SLIC superpixels in integer arithmetic; the algorithm in plain words is reference.py.
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "native.h"
#include "superpixels/cluster.h"
#include "superpixels/pieces.h"

namespace nb = nanobind;

namespace {

using lithostream::superpixels::Clusters;
using lithostream::superpixels::Picture;
using lithostream::superpixels::Pieces;
using lithostream::superpixels::Plan;
using lithostream::superpixels::Regions;

using Image = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <int C>
void label(const Image& image, const bool* mask, const Plan& plan, int threads, Labels& labels) {
    const int64_t stride = static_cast<int64_t>(image.shape(1));
    const Picture<C> picture(image.data(), mask, stride, plan, threads);
    if (plan.height * plan.width < static_cast<int64_t>(labels.size()))
        std::fill_n(labels.data(), labels.size(), 0);
    const Regions regions{labels.data() + plan.y0 * stride + plan.x0, stride};
    Clusters<C>(picture, plan, threads).run(regions);
    Pieces<C>(picture, plan, threads, regions).run();
}

void slic(Image image, Mask mask, std::tuple<int64_t, int64_t, int64_t, int64_t> box,
          std::pair<int64_t, int64_t> cells, int64_t stride, int64_t unit, int64_t weight, int64_t min_size,
          int threads, Labels labels) {
    const auto [y0, x0, y1, x1] = box;
    const Plan plan{y0, x0, y1 - y0, x1 - x0, cells.first, cells.second, stride, unit, weight, min_size};
    const bool* inside = mask.is_valid() ? mask.data() : nullptr;
    switch (image.shape(2)) {
        case 1:
            return label<1>(image, inside, plan, threads, labels);
        case 2:
            return label<2>(image, inside, plan, threads, labels);
        case 3:
            return label<3>(image, inside, plan, threads, labels);
        default:
            return label<4>(image, inside, plan, threads, labels);
    }
}

}  // namespace

void register_slic(nb::module_& m) {
    m.def("slic", &slic, nb::arg("image").noconvert(), nb::arg("mask").noconvert().none(), nb::arg("box"),
          nb::arg("cells"), nb::arg("stride"), nb::arg("unit"), nb::arg("weight"), nb::arg("min_size"),
          nb::arg("threads"), nb::arg("labels").noconvert(), nb::call_guard<nb::gil_scoped_release>());
}
