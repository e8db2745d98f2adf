// min |A x - b| over x >= 0 by the active-set method of Lawson and Hanson (1974, 23.10), on Householder
// factors of the rows: the Gram matrix would square the condition number.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace lithostream::unmixing {

constexpr int kMaxEndmembers = 32;
constexpr int kMaxChannels = 64;
constexpr int kMaxRows = kMaxChannels + kMaxEndmembers + 1;  // channels, ridge, sum
constexpr int kUsualStepsPerColumn = 3;                      // as Lawson and Hanson found
constexpr int kStepsPerColumn = 10;

// A unit column with less than this outside the span of the others counts as inside.
constexpr double kRankTolerance = 1e-11;
// Rounding allowed in a gradient per unit of |b| + sum |x|; beyond the usual steps, where rounding may make
// columns trade places for ever, also per row.
constexpr double kGradientTolerance = 2 * std::numeric_limits<double>::epsilon();

using Column = std::array<double, kMaxRows>;
using Row = std::array<double, kMaxEndmembers>;

inline double dot(const double* a, const double* b, int count) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

// Euclidean norm that neither overflows nor vanishes before its result does.
inline double norm(const double* a, int count) {
    double largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, std::abs(a[i]));
    if (!(largest > 0)) return 0;
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += (a[i] / largest) * (a[i] / largest);
    return largest * std::sqrt(sum);
}

// A matrix whose columns have length 1 (or 0); `scale` is what each was divided by.
struct UnitColumns {
    int rows = 0, count = 0;
    std::array<Column, kMaxEndmembers> at;
    Row scale;

    void normalise(int j) {
        const double length = norm(at[j].data(), rows);
        scale[j] = length > 0 ? length : 1;
        for (int i = 0; i < rows; ++i) at[j][i] /= scale[j];
    }
};

// QR factors of a list of columns that grows and shrinks at its end.
class Qr {
  public:
    explicit Qr(int rows) : rows_(rows) {}

    int size() const { return size_; }
    void truncate(int size) { size_ = size; }

    // Append a column; returns its distance to the span of the others. At 0 nothing is appended.
    double append(const Column& column) {
        if (size_ == rows_) return 0;
        Column& v = reflector_[size_];
        std::copy_n(column.begin(), rows_, v.begin());
        for (int k = 0; k < size_; ++k) reflect(k, v);
        const double length = norm(&v[size_], rows_ - size_);
        if (length == 0) return 0;
        diagonal_[size_] = v[size_] > 0 ? -length : length;
        v[size_] -= diagonal_[size_];
        beta_[size_] = 1 / (length * std::abs(v[size_]));
        ++size_;
        return length;
    }

    // Coefficients of the columns that come nearest to b.
    Row solve(Column b) const {
        Row z;
        for (int k = 0; k < size_; ++k) reflect(k, b);
        for (int k = size_ - 1; k >= 0; --k) {
            z[k] = b[k];
            for (int j = k + 1; j < size_; ++j) z[k] -= reflector_[j][k] * z[j];
            z[k] /= diagonal_[k];
        }
        return z;
    }

  private:
    // Reflector k lies in rows k.. of its column; the rows above hold that column of R.
    void reflect(int k, Column& y) const {
        const double* v = &reflector_[k][k];
        const double factor = beta_[k] * dot(v, &y[k], rows_ - k);
        for (int i = k; i < rows_; ++i) y[i] -= factor * v[i - k];
    }

    int rows_, size_ = 0;
    std::array<Column, kMaxEndmembers> reflector_;
    Row diagonal_, beta_;
};

class ActiveSet {
  public:
    // `b` has length 1 or 0.
    ActiveSet(const UnitColumns& a, const Column& b) : a_(a), b_(b), qr_(a.rows) {
        x_.fill(0);
        passive_at_.fill(-1);
    }

    const Row& x() const { return x_; }
    // Descent per unit of each coefficient, at most rounding once solved.
    const Row& gain() const { return gain_; }

    // False where the step limit is reached.
    bool solve() {
        const int limit = kStepsPerColumn * a_.count;
        while (steps_ <= limit) {
            const double allowed = update_gain();
            std::array<bool, kMaxEndmembers> rejected{};
            int entering;
            do {
                entering = steepest(rejected, allowed);
                if (entering < 0) return true;
                rejected[entering] = true;
            } while (!enter(entering));
            settle(limit);
        }
        return false;
    }

  private:
    double update_gain() {
        Column misfit = b_;
        double total = 1;
        for (int j = 0; j < a_.count; ++j) {
            for (int i = 0; x_[j] > 0 && i < a_.rows; ++i) misfit[i] -= x_[j] * a_.at[j][i];
            total += x_[j];
        }
        for (int j = 0; j < a_.count; ++j) gain_[j] = dot(a_.at[j].data(), misfit.data(), a_.rows);
        const bool usual = steps_ <= kUsualStepsPerColumn * a_.count;
        return kGradientTolerance * total * (usual ? 1 : a_.rows);
    }

    int steepest(const std::array<bool, kMaxEndmembers>& rejected, double allowed) const {
        int best = -1;
        for (int j = 0; j < a_.count; ++j)
            if (!rejected[j] && passive_at_[j] < 0 && gain_[j] > allowed &&
                (best < 0 || gain_[j] > gain_[best]))
                best = j;
        return best;
    }

    // Add a column to the passive set, unless it depends on the others or rounding alone made it attractive.
    bool enter(int j) {
        const int size = qr_.size();
        if (qr_.append(a_.at[j]) > kRankTolerance) {
            z_ = qr_.solve(b_);
            if (z_[size] > 0) {
                passive_[size] = j;
                passive_at_[j] = size;
                return true;
            }
        }
        qr_.truncate(size);
        return false;
    }

    // Move towards the solution on the passive set, dropping each coefficient that reaches 0 on the way.
    void settle(int limit) {
        while (++steps_ <= limit) {
            int first = -1;
            double reach = 1;
            for (int k = 0; k < qr_.size(); ++k) {
                const double here = x_[passive_[k]];
                if (z_[k] > 0 || (first >= 0 && here / (here - z_[k]) >= reach)) continue;
                first = k;
                reach = here / (here - z_[k]);
            }
            for (int k = 0; k < qr_.size(); ++k) {
                double& x = x_[passive_[k]];
                x = first < 0 ? z_[k] : k == first ? 0 : std::max(x + reach * (z_[k] - x), 0.0);
            }
            if (first < 0) return;
            drop_zeros(first);
            z_ = qr_.solve(b_);
        }
    }

    // Rebuild the factors from position `first` on without the columns whose coefficient is 0.
    void drop_zeros(int first) {
        const int size = qr_.size();
        qr_.truncate(first);
        for (int k = first; k < size; ++k) {
            const int j = passive_[k];
            passive_at_[j] = -1;
            if (x_[j] > 0) {
                passive_[qr_.size()] = j;
                passive_at_[j] = qr_.size();
                qr_.append(a_.at[j]);
            }
        }
    }

    const UnitColumns& a_;
    const Column& b_;
    Qr qr_;
    Row x_, gain_, z_;
    std::array<int, kMaxEndmembers> passive_, passive_at_;  // columns in the factors; position, or -1
    int steps_ = 0;
};

}  // namespace lithostream::unmixing
