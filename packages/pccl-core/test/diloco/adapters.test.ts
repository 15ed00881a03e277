/** Goal: what users train with is read and written whole. Method: the libraries themselves, training a line. */
import { init, numpy as np, valueAndGrad } from "@jax-js/jax";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import { Diloco } from "@pccl/core/diloco";
import { jaxParameters } from "@pccl/core/jax";
import { tfjsParameters } from "@pccl/core/tfjs";
import { describe, expect, it } from "vitest";
import { withCode, world } from "./fixtures/world.js";

/** Points of y = 2 x − 1. */
const XS = [-1, 0, 1, 2];
const YS = XS.map((x) => 2 * x - 1);

describe("TensorFlow.js variables", () => {
  it("are trained by several peers", async () => {
    await tf.setBackend("cpu");
    const peers = await world(2);
    const models = peers.map((_, i) => ({
      w: tf.variable(tf.tensor([0], [1, 1]), true, `w-${i}`),
      b: tf.variable(tf.tensor([0], [1]), true, `b-${i}`),
    }));
    const before = tf.memory().numTensors;
    const all = await Promise.all(
      peers.map(async (communicator, i) => {
        const { w, b } = models[i] as (typeof models)[number];
        const parameters = tfjsParameters(tf, { w, b });
        const diloco = new Diloco({ communicator, parameters, innerSteps: 5 });
        // Each sees half of the points.
        const x = tf.tensor(
          XS.filter((_, k) => k % 2 === i),
          [2, 1],
        );
        const y = tf.tensor(
          YS.filter((_, k) => k % 2 === i),
          [2, 1],
        );
        const loss = (): tf.Scalar => tf.mean(tf.square(tf.sub(tf.add(tf.matMul(x, w), b), y)));
        await diloco.run({
          outerSteps: 12,
          innerStep: () => {
            const { value, grads } = tf.variableGrads(loss, [w, b]);
            for (const variable of [w, b]) {
              const gradient = grads[variable.name] as tf.Tensor;
              const moved = tf.tidy(() => tf.sub(variable, tf.mul(gradient, 0.06)));
              variable.assign(moved);
              moved.dispose();
              gradient.dispose();
            }
            const result = { loss: value.dataSync()[0] as number };
            value.dispose();
            return result;
          },
        });
        x.dispose();
        y.dispose();
        return diloco;
      }),
    );
    for (const { w, b } of models) {
      expect((await w.data())[0]).toBeCloseTo(2, 0);
      expect((await b.data())[0]).toBeCloseTo(-1, 0);
    }
    expect(all[0]?.digest).toBe(all[1]?.digest);
    // Nothing is kept of what was read and written.
    expect(tf.memory().numTensors).toBe(before);
  });

  it("must be float32 variables", () => {
    const int = tf.variable(tf.tensor([1], [1], "int32"), true, "int");
    expect(() => tfjsParameters(tf, [int])).toThrow(/"int" must be float32/);
    expect(() => tfjsParameters(tf, [tf.tensor([1])] as never)).toThrow(
      withCode("ERR_PCCL_INVALID_ARGUMENT"),
    );
    expect(() => tfjsParameters({} as never, {})).toThrow(withCode("ERR_PCCL_INVALID_ARGUMENT"));
  });
});

describe("arrays of jax-js", () => {
  it("are trained by several peers", async () => {
    await init("cpu");
    const peers = await world(2);
    const results = await Promise.all(
      peers.map(async (communicator, i) => {
        type Line = { w: np.Array; b: np.Array };
        let line: Line = { w: np.zeros([1, 1]), b: np.zeros([1]) };
        const parameters = jaxParameters<np.Array>({
          numpy: np,
          get: () => line,
          set: (next) => {
            line = next as Line;
          },
        });
        expect(parameters.layout).toEqual([
          { name: "w", length: 1 },
          { name: "b", length: 1 },
        ]);
        const half = (values: number[]): Float32Array =>
          Float32Array.from(values.filter((_, k) => k % 2 === i));
        const loss = (p: Line): np.Array => {
          const x = np.array(half(XS)).reshape([2, 1]);
          const y = np.array(half(YS)).reshape([2, 1]);
          const off = np.matmul(x, p.w).add(p.b).sub(y);
          return off.ref.mul(off).mean();
        };
        const gradient = valueAndGrad(loss);
        const diloco = new Diloco({ communicator, parameters, innerSteps: 5 });
        await diloco.run({
          outerSteps: 12,
          innerStep: async () => {
            const [value, { w, b }] = gradient({ w: line.w.ref, b: line.b.ref });
            line = { w: line.w.sub(w.mul(0.06)), b: line.b.sub(b.mul(0.06)) };
            return { loss: ((await value.data()) as Float32Array)[0] as number };
          },
        });
        return { digest: diloco.digest, w: await line.w.data(), b: await line.b.data() };
      }),
    );
    for (const { digest, w, b } of results) {
      expect(w[0]).toBeCloseTo(2, 0);
      expect(b[0]).toBeCloseTo(-1, 0);
      expect(digest).toBe(results[0]?.digest);
    }
  });

  it("must keep their names and sizes", async () => {
    await init("cpu");
    let arrays: Record<string, np.Array> = { w: np.zeros([3]) };
    const source = jaxParameters<np.Array>({ numpy: np, get: () => arrays, set: () => undefined });
    arrays = { w: np.zeros([4]) };
    await expect(source.read(new Float32Array(3))).rejects.toThrow(withCode("ERR_PCCL_LAYOUT_MISMATCH"));
    expect(() => jaxParameters({} as never)).toThrow(withCode("ERR_PCCL_INVALID_ARGUMENT"));
  });
});
