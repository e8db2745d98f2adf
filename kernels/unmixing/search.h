// A first guess of the supports of several problems that each have a table of their own, one problem to a
// lane of a vector: active sets on the Gram matrices, factored anew each step. It proves nothing.
#pragma once

#include <cstdint>

#include "unmixing/clones.h"

namespace lithostream::unmixing {

constexpr int kLanes = 8;
constexpr int kMostSearched = 16;  // endmembers
constexpr int kSearchSteps = 24;
// Squared distance of a unit column to the span of those before that counts as dependent.
constexpr double kSearchPivot = 1e-9;

using Lanes = double __attribute__((vector_size(8 * kLanes)));
using Mask = int64_t __attribute__((vector_size(8 * kLanes)));  // all bits set where true

// Unit columns: Gram matrix (lower triangle), gradient at 0, what a scaled share adds to the sum, and the
// gradient that still counts as 0. `search` changes the support and the number of steps left.
struct Group {
    int count = 0;
    bool sum = false;
    Lanes gram[kMostSearched][kMostSearched] = {}, target[kMostSearched] = {}, inverse[kMostSearched] = {};
    Lanes allowed = {};
    Mask inside[kMostSearched] = {}, left = {};
};

// L D L' of the Gram matrix on the support, by rows. A dependent column leaves the support.
struct Factored {
    Lanes lower[kMostSearched][kMostSearched], reciprocal[kMostSearched];
};

LITHOSTREAM_PART void decompose(Group& group, Factored& factored) {
    for (int k = 0; k < group.count; ++k) {
        Lanes product[kMostSearched];
        Lanes pivot = group.gram[k][k];
        for (int l = 0; l < k; ++l) {
            product[l] = group.gram[k][l];
            for (int m = 0; m < l; ++m) product[l] -= product[m] * factored.lower[l][m];
            factored.lower[k][l] = product[l] * factored.reciprocal[l];
            pivot -= product[l] * factored.lower[k][l];
        }
        group.inside[k] &= pivot > kSearchPivot;
        factored.reciprocal[k] = group.inside[k] ? 1 / pivot : Lanes{};
    }
}

LITHOSTREAM_PART void substitute(const Factored& factored, int count, const Lanes* right, Lanes* x) {
    for (int k = 0; k < count; ++k) {
        x[k] = right[k];
        for (int m = 0; m < k; ++m) x[k] -= factored.lower[k][m] * x[m];
    }
    for (int k = count - 1; k >= 0; --k) {
        x[k] *= factored.reciprocal[k];
        for (int m = k + 1; m < count; ++m) x[k] -= factored.lower[m][k] * x[m];
    }
}

// x on the support, in balance but for its signs, and the gradient of each endmember.
LITHOSTREAM_PART void solve(const Group& group, const Factored& factored, Lanes* x, Lanes* gain) {
    const int count = group.count;
    substitute(factored, count, group.target, x);
    Lanes multiplier = {};
    if (group.sum) {
        Lanes share[kMostSearched], excess = Lanes{} - 1, weight = {};
        substitute(factored, count, group.inverse, share);
        for (int k = 0; k < count; ++k) {
            excess += group.inverse[k] * x[k];
            weight += group.inverse[k] * share[k];
        }
        multiplier = excess / weight;
        for (int k = 0; k < count; ++k) x[k] -= multiplier * share[k];
    }
    for (int k = 0; k < count; ++k) {
        gain[k] = group.target[k] - multiplier * group.inverse[k];
        for (int m = 0; m < count; ++m) gain[k] -= group.gram[k > m ? k : m][k > m ? m : k] * x[m];
    }
}

// Drops what is negative and lets the steepest of the others in. Returns the lanes, one bit each, where
// nothing was left to change or the steps are used up. No lane feels the others.
LITHOSTREAM_CLONES inline unsigned search(Group& group) {
    Factored factored;
    Lanes x[kMostSearched], gain[kMostSearched], best = group.allowed;
    decompose(group, factored);
    solve(group, factored, x, gain);
    for (int k = 0; k < group.count; ++k) best = (~group.inside[k] & (gain[k] > best)) ? gain[k] : best;
    Mask changed = {};
    for (int k = 0; k < group.count; ++k) {
        const Mask steepest = (gain[k] > group.allowed) & (gain[k] >= best);
        // Clang's comparison gives vectors of long long, and its ?: takes one type alone.
        const Mask wrong = group.inside[k] ? Mask(x[k] < 0) : steepest;
        group.inside[k] ^= wrong;
        changed |= wrong;
    }
    group.left -= 1;
    unsigned done = 0;
    for (int lane = 0; lane < kLanes; ++lane)
        done |= (changed[lane] == 0 || group.left[lane] <= 0 ? 1u : 0u) << lane;
    return done;
}

}  // namespace lithostream::unmixing
