// The one native module: each operation registers its functions here.
#include "native.h"

NB_MODULE(_native, m) {
    m.doc() = "Compiled CPU kernels of lithostream.";
    register_segment_stats(m);
    register_slic(m);
    register_nnls(m);
    register_idw(m);
    register_tiles(m);
}
