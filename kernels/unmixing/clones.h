// One copy of a function per instruction set, chosen at load time, unless the build chose one. Products and
// sums are not contracted and not reordered, so all copies agree to the last bit.
#pragma once

#if defined(__x86_64__) && !defined(__AVX2__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__)
#define LITHOSTREAM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LITHOSTREAM_CLONES
#endif
// What a clone calls has to become part of it.
#define LITHOSTREAM_PART inline __attribute__((always_inline))
