// A first guess of the support for a table of its own: active set on the Gram matrix, with Cholesky factors
// that grow by one column a step. It proves nothing.
#pragma once

#include "unmixing/support.h"

namespace lithostream::unmixing {

template <int E, bool Sum>
class Search {
  public:
    // `b` as for Pivot.
    Search(const Table<E>& table, const double* b) : table_(table) {
        for (int j = 0; j < E; ++j) target_[j] = Sum ? table.height * table.height * table.inverse[j] : 0;
        for (int i = 0; i < table.rows; ++i)
            for (int j = 0; j < E; ++j) target_[j] += b[i] * table.at[i][j];
    }

    // Starts from as many endmembers as the rows hold: dropping is cheaper than adding one by one.
    Support run(double tolerance) {
        for (int j = 0; j < table_.count && size_ < table_.rows + Sum; ++j) append(j);
        for (int step = 0; step < 3 * E; ++step) {
            solve();
            if (drop_negative()) continue;
            const int entering = steepest(tolerance);
            if (entering < 0 || !append(entering)) break;
        }
        Support found = 0;
        for (int k = 0; k < size_; ++k) found |= Support{1} << member_[k];
        return found;
    }

  private:
    // False, and nothing appended, where the column depends on the others.
    bool append(int j) {
        double* row = lower_[size_];
        double pivot = table_.gram[j][j], y = target_[j], q = table_.inverse[j];
        for (int k = 0; k < size_; ++k) {
            double sum = table_.gram[j][member_[k]];
            for (int m = 0; m < k; ++m) sum -= row[m] * lower_[k][m];
            row[k] = sum * lower_[k][k];
            pivot -= row[k] * row[k];
            y -= row[k] * y_[k];
            q -= row[k] * q_[k];
        }
        if (!(pivot > kLeastPivot)) return false;
        row[size_] = 1 / std::sqrt(pivot);
        y_[size_] = y * row[size_];
        q_[size_] = q * row[size_];
        member_[size_++] = j;
        return true;
    }

    // With the sum, the multiplier that makes it 1 is taken out before the back substitution.
    void solve() {
        double excess = -1, weight = 0;
        for (int k = 0; Sum && k < size_; ++k) {
            excess += q_[k] * y_[k];
            weight += q_[k] * q_[k];
        }
        multiplier_ = Sum ? excess / weight : 0;
        for (int k = size_ - 1; k >= 0; --k) {
            double z = y_[k] - multiplier_ * q_[k];
            for (int m = k + 1; m < size_; ++m) z -= lower_[m][k] * z_[m];
            z_[k] = z * lower_[k][k];
        }
    }

    bool drop_negative() {
        const int size = size_;
        int first = 0;
        while (first < size && !(z_[first] < 0)) ++first;
        size_ = first;
        for (int k = first; k < size; ++k)
            if (!(z_[k] < 0)) append(member_[k]);
        return first < size;
    }

    int steepest(double tolerance) const {
        double gain[E];
        for (int j = 0; j < E; ++j) gain[j] = target_[j] - multiplier_ * table_.inverse[j];
        for (int k = 0; k < size_; ++k)
            for (int j = 0; j < E; ++j) gain[j] -= z_[k] * table_.gram[member_[k]][j];
        for (int k = 0; k < size_; ++k) gain[member_[k]] = 0;
        const int best = static_cast<int>(std::max_element(gain, gain + table_.count) - gain);
        return gain[best] > tolerance ? best : -1;
    }

    const Table<E>& table_;
    int size_ = 0, member_[E + 1];
    double multiplier_ = 0;
    alignas(32) double target_[E];
    double lower_[E + 1][E + 1], y_[E + 1], q_[E + 1], z_[E + 1];
};

}  // namespace lithostream::unmixing
