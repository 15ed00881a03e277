/** The element-wise arithmetic of outer steps, in native code and off this thread; the same bits on every CPU. */
import { type ElementwiseKernel, loadAddon, type Tensor } from "@pccl/bindings";

export async function elementwise(
  kernel: ElementwiseKernel,
  arrays: readonly Float32Array[],
  factors: readonly number[] = [],
): Promise<void> {
  await loadAddon().elementwise(kernel, arrays, factors);
}

/** into = a − b; resolves to the sum of its squares, which isn't finite unless all of it is. */
export async function difference(a: Float32Array, b: Float32Array, into: Float32Array): Promise<number> {
  const sum = new Float64Array(1);
  await loadAddon().elementwise("difference", [a, b, into], [], sum);
  return sum[0] as number;
}

/** XXH3-128 of each array's bytes, 16 bytes each. */
export async function digestOf(arrays: readonly Tensor[]): Promise<Uint8Array> {
  const into = new Uint8Array(16 * arrays.length);
  await loadAddon().digest(arrays, into);
  return into;
}
