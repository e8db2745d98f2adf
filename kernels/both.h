// Marks what host and device code share.
#pragma once

#if defined(__CUDACC__) || defined(__CUDA_ON_HOST__)
#define LITHOSTREAM_BOTH __host__ __device__
#else
#define LITHOSTREAM_BOTH
#endif
