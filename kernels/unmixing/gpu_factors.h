// Householder factors in the scratch of one thread.
#pragma once

namespace lithostream::unmixing {

// Numbers of one thread, interleaved with those of the others: neighbours touch neighbouring words.
struct Lane {
    double* at;
    long long step;

    __device__ double& operator[](int i) const { return at[i * step]; }
    __device__ Lane from(int i) const { return {at + i * step, step}; }
    __device__ Lane take(int count) {
        const Lane taken = *this;
        *this = from(count);
        return taken;
    }
};

// Columns whose numbers lie side by side.
struct Columns {
    Lane all;
    int height;

    __device__ Lane operator[](int j) const { return all.from(j * height); }
    __device__ double& operator()(int j, int i) const { return all[j * height + i]; }
};

__device__ inline double length_of(const Lane& a, int first, int last) {
    double sum = 0;
    for (int i = first; i < last; ++i) sum += a[i] * a[i];
    return sqrt(sum);
}

// QR factors of a list of columns that grows at its end.
struct Factors {
    Columns reflectors;
    Lane diagonal, beta;
    int rows, size;

    // Where the next column has to be written.
    __device__ Lane next() const { return reflectors[size]; }

    // Takes it in; returns its distance to the span of the others. At 0 it is left out.
    __device__ double append() {
        if (size == rows) return 0;
        const Lane v = next();
        for (int k = 0; k < size; ++k) reflect(k, v);
        const double length = length_of(v, size, rows);
        if (!(length > 0)) return 0;
        diagonal[size] = v[size] > 0 ? -length : length;
        v[size] -= diagonal[size];
        beta[size] = 1 / (length * fabs(v[size]));
        ++size;
        return length;
    }

    // The first numbers of b become the coefficients of the columns that come nearest to it.
    __device__ void solve(const Lane& b) const {
        for (int k = 0; k < size; ++k) reflect(k, b);
        for (int k = size - 1; k >= 0; --k) {
            double sum = b[k];
            for (int j = k + 1; j < size; ++j) sum -= reflectors(j, k) * b[j];
            b[k] = sum / diagonal[k];
        }
    }

  private:
    // Reflector k lies in rows k.. of its column; the rows above hold that column of R.
    __device__ void reflect(int k, const Lane& y) const {
        const Lane v = reflectors[k];
        double product = 0;
        for (int i = k; i < rows; ++i) product += v[i] * y[i];
        product *= beta[k];
        for (int i = k; i < rows; ++i) y[i] -= product * v[i];
    }
};

}  // namespace lithostream::unmixing
