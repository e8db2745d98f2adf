// What one thread does: narrow the points down to a cell, choose its neighbours, weigh their values.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "gridding/kth_smallest.h"
#include "gridding/nearest.h"

namespace lithostream::gridding {

constexpr size_t kTogether = 8;  // channels
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Values {
    const double* at;  // [point][channel]
    size_t channels;
    bool complete;  // no NaN anywhere

    double operator()(int32_t point, size_t channel) const { return at[point * channels + channel]; }
};

struct Raster {
    float* at;  // [channel][row][column]
    int64_t height, width;

    float& operator()(size_t channel, int64_t row, int64_t column) const {
        return at[(channel * height + row) * width + column];
    }
};

struct Problem {
    Grid grid;
    Reach reach;
    double power;
    Values values;
    Raster out;
};

// Squared distances in place become weights, 1 for the nearest; points on the cell itself leave no other.
inline void weigh(double* squared, size_t count, double power) {
    const double nearest = *std::min_element(squared, squared + count);
    if (nearest == 0) {
        for (size_t i = 0; i < count; ++i) squared[i] = squared[i] == 0;
        return;
    }
    for (size_t i = 0; i < count; ++i) squared[i] = nearest / squared[i];
    if (power != 2)
        for (size_t i = 0; i < count; ++i) squared[i] = std::pow(squared[i], power / 2);
}

// The work of one thread, with its memory.
class Worker {
  public:
    explicit Worker(const Problem& problem) : problem_(problem) {}

    void fill(const Block& block, const Candidates& candidates, size_t depth = 0) {
        const bool single = block.rows * block.columns == 1;
        if (single || problem_.reach.takes_all(candidates.count)) return fill_cells(block, candidates);
        if (depth == levels_.size()) levels_.push_back(std::make_unique<Candidates>());
        Candidates& own = *levels_[depth];
        split(block, Box(problem_.grid, block), [&](const Block& part) {
            if (part.rows * part.columns == 1) return fill_cells(part, candidates);
            narrow_(Box(problem_.grid, part), problem_.reach, candidates, own);
            fill(part, own, depth + 1);
        });
    }

  private:
    void fill_cells(const Block& block, const Candidates& candidates) {
        for (int64_t row = block.row; row < block.row + block.rows; ++row)
            for (int64_t column = block.column; column < block.column + block.columns; ++column) {
                const size_t count = measure(row, column, candidates);
                problem_.values.complete ? blend(row, column, count) : blend_each(row, column, count);
            }
    }

    // Squared distances and indices of the neighbours of a cell; returns how many.
    size_t measure(int64_t row, int64_t column, const Candidates& candidates) {
        const double x = problem_.grid.x(column), y = problem_.grid.y(row);
        const size_t count = candidates.count;
        const double *px = candidates.x.data(), *py = candidates.y.data();
        double* squared = squared_.room(count);
        for (size_t i = 0; i < count; ++i) {
            const double dx = px[i] - x, dy = py[i] - y;
            squared[i] = dx * dx + dy * dy;
        }
        index_ = candidates.index.data();
        return problem_.reach.takes_all(count) ? count : select(count);
    }

    // Leaves the neighbours of the measured candidates.
    size_t select(size_t count) {
        const auto& [k, squared_radius] = problem_.reach;
        if (squared_radius < kInfinity)
            count = keep(count, [limit = squared_radius](double squared) { return squared <= limit; });
        if (count <= k) return count;
        const double* squared = squared_.data();
        float* rough = rough_.room(count + kLanes);
        for (size_t i = 0; i < count; ++i) rough[i] = static_cast<float>(squared[i]);
        const float limit = kth_smallest(rough, count, k);
        count = keep(count, [limit](double number) { return static_cast<float>(number) <= limit; });
        return count > k ? break_ties(count) : count;
    }

    // What floats do not tell apart, and of points as far as the k-th the first.
    size_t break_ties(size_t count) {
        const size_t k = problem_.reach.k;
        double* sorted = scratch_.room(count);
        std::copy_n(squared_.data(), count, sorted);
        std::nth_element(sorted, sorted + k - 1, sorted + count);
        const double limit = sorted[k - 1];
        int64_t equal =
            k - std::count_if(sorted, sorted + k, [limit](double number) { return number < limit; });
        return keep(count,
                    [&](double squared) { return squared < limit || (squared == limit && equal-- > 0); });
    }

    template <typename Test>
    size_t keep(size_t count, Test test) {
        double* squared = squared_.room(count);
        int32_t* index = chosen_.room(count);
        size_t kept = 0;
        for (size_t i = 0; i < count; ++i) {
            const double number = squared[i];
            squared[kept] = number, index[kept] = index_[i];
            kept += test(number);
        }
        index_ = index;
        return kept;
    }

    // All channels with the same weights.
    void blend(int64_t row, int64_t column, size_t count) {
        const size_t channels = problem_.values.channels;
        double *weight = squared_.room(count), total = 0;
        if (count > 0) weigh(weight, count, problem_.power);
        for (size_t i = 0; i < count; ++i) total += weight[i];
        size_t c = 0;
        for (; c + kTogether <= channels; c += kTogether) sum<kTogether>(row, column, c, count, total);
        for (; c < channels; ++c) sum<1>(row, column, c, count, total);
    }

    // Weighted mean of some channels, summed in registers.
    template <size_t Channels>
    void sum(int64_t row, int64_t column, size_t first, size_t count, double total) {
        const double* weight = squared_.data();
        const double* values = problem_.values.at + first;
        double sums[Channels] = {};
        for (size_t i = 0; i < count; ++i)
            for (size_t c = 0; c < Channels; ++c)
                sums[c] += weight[i] * values[index_[i] * problem_.values.channels + c];
        for (size_t c = 0; c < Channels; ++c)
            problem_.out(first + c, row, column) = count > 0 ? static_cast<float>(sums[c] / total) : kNaN;
    }

    // Each channel with the weights of those neighbours that have a value there.
    void blend_each(int64_t row, int64_t column, size_t count) {
        const double* squared = squared_.data();
        double* weight = scratch_.room(count);
        for (size_t c = 0; c < problem_.values.channels; ++c) {
            size_t known = 0;
            for (size_t i = 0; i < count; ++i) {
                weight[known] = squared[i];
                known += !std::isnan(problem_.values(index_[i], c));
            }
            if (known > 0) weigh(weight, known, problem_.power);
            double sum = 0, total = 0;
            for (size_t i = 0, w = 0; i < count; ++i) {
                const double value = problem_.values(index_[i], c);
                if (std::isnan(value)) continue;
                total += weight[w];
                sum += weight[w++] * value;
            }
            problem_.out(c, row, column) = known > 0 ? static_cast<float>(sum / total) : kNaN;
        }
    }

    const Problem& problem_;
    Narrowing narrow_;
    std::vector<std::unique_ptr<Candidates>> levels_;  // pointers: a level must stay where it is
    Buffer<double> squared_, scratch_;
    Buffer<float> rough_;
    Buffer<int32_t> chosen_;
    const int32_t* index_ = nullptr;
};

}  // namespace lithostream::gridding
