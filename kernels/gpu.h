// What device code needs from its compiler: nvcc, NVRTC, or the host emulator of the tests.
#pragma once

// Shared memory whose size the launch decides.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name)                                \
    extern __shared__ __align__(16) unsigned char name##_bytes[]; \
    type* name = reinterpret_cast<type*>(name##_bytes)
#endif
