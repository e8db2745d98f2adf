"""One instruction that Numba does not offer: ask for memory before it is read."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(context: Any, array: Any, at: Any) -> Any:
    """Fetch the cache line around byte `at` of a contiguous array; any address may be asked for, in vain at worst.

    The processor foresees one long run of bytes, but not the short runs beside a core, row after row.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        address = builder.gep(data, [arguments[1]])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, number(0), number(3), number(1)])  # to read, keep close, data
        return target.get_dummy_value()

    return types.void(array, at), generate
