import { assertEquals, assertThrows } from "@std/assert";
import { gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { asNarrow } from "../support/narrow_device.ts";
import { createRandom } from "../support/random.ts";
import * as reference from "../reference/adamw.ts";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { createTensor, viewTensor, writeTensor } from "../../gpu/tensor.ts";
import { adamw, type AdamwSettings, adamwStep } from "../../gpu/kernels/adamw.ts";

const settings: AdamwSettings = { betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1 };
const learningRate = 3e-3;

for (const count of [4, 1024, 1028, 70_000, 1_000_000]) {
  gpuTest(`adamw matches the reference over three steps for ${count} values`, async (device) => {
    const random = createRandom(11);
    const clip = 0.25;
    let wanted: Omit<reference.AdamwState, "gradient"> = {
      weight: Float64Array.from(Float32Array.from(random.normals(count))),
      firstMoment: new Float64Array(count),
      secondMoment: new Float64Array(count),
    };
    const tensors = adamwTensors(device, { weight: wanted.weight, norm: [4, clip] });
    for (let step = 1; step <= 3; step++) {
      const gradient = Float64Array.from(Float32Array.from(random.normals(count)));
      writeTensor(device, tensors.gradients, Float32Array.from(gradient));
      writeTensor(device, tensors.step, adamwStep({ learningRate, step }, settings));
      const [weight, firstMoment, secondMoment] = await run(
        device,
        (commands) => adamw(commands, tensors, settings),
        [tensors.weights, tensors.firstMoments, tensors.secondMoments],
      );
      const { betas: [beta1, beta2], eps: epsilon, weightDecay } = settings;
      wanted = reference.adamw({ ...wanted, gradient }, {
        learningRate,
        beta1,
        beta2,
        epsilon,
        weightDecay,
        step,
        clip,
      });
      assertClose(weight!, wanted.weight, { relative: 2e-7, label: `weights of step ${step}` });
      assertClose(firstMoment!, wanted.firstMoment, {
        relative: 5e-7,
        label: `first moments of step ${step}`,
      });
      assertClose(secondMoment!, wanted.secondMoment, {
        relative: 5e-7,
        label: `second moments of step ${step}`,
      });
    }
  });
}

gpuTest("adamw changes nothing when the norm is not finite", async (device) => {
  const tensors = adamwTensors(device, { weight: [1, 2, 3, 4], norm: [NaN, 0] });
  writeTensor(device, tensors.gradients, Float32Array.of(NaN, 1, Infinity, 1));
  writeTensor(device, tensors.step, adamwStep({ learningRate, step: 1 }, settings));
  const [weights, first, second] = await run(
    device,
    (commands) => adamw(commands, tensors, settings),
    [tensors.weights, tensors.firstMoments, tensors.secondMoments],
  );
  assertEquals([...weights!], [1, 2, 3, 4]);
  assertEquals([...first!, ...second!], [0, 0, 0, 0, 0, 0, 0, 0]);
});

gpuTest("adamw reaches the end of tensors that are longer than a binding", async (opened) => {
  const device = asNarrow(opened);
  const step = device.limits.maxStorageBufferBindingSize / 4;
  const count = step + 4096;
  const tensors = adamwTensors(device, { weight: new Float32Array(count), norm: [1, 1] });
  writeTensor(device, tensors.step, adamwStep({ learningRate, step: 1 }, settings));
  const places = [0, step - 4, step, count - 4];
  for (const start of places) {
    writeTensor(device, viewTensor(tensors.weights, { start, shape: [4] }), Float32Array.of(1, 1, 1, 1));
    writeTensor(device, viewTensor(tensors.gradients, { start, shape: [4] }), Float32Array.of(2, 2, 2, 2));
  }
  const met = await run(
    device,
    (commands) => adamw(commands, tensors, settings),
    places.map((start) => viewTensor(tensors.weights, { start, shape: [4] })),
  );
  const one = 1 - learningRate * (settings.weightDecay + 1);
  for (const part of met) assertClose(part, [one, one, one, one], { relative: 2e-7, label: "weights" });
});

gpuTest("adamw refuses moments of another size", (device) => {
  const tensors = adamwTensors(device, { weight: [1, 2, 3, 4], norm: [1, 1] });
  const commands = new Commands(device, "test");
  const short = { ...tensors, secondMoments: upload(device, []) };
  assertThrows(
    () => adamw(commands, short, settings),
    TypeError,
    "secondMoments has shape (0), expected (4)",
  );
  return Promise.resolve();
});

/** Tensors of an update, gradients, moments and step zero. */
function adamwTensors(
  device: GpuDevice,
  { weight, norm }: { weight: ArrayLike<number>; norm: readonly number[] },
): Parameters<typeof adamw>[1] {
  const shape = [weight.length];
  return {
    weights: upload(device, weight),
    gradients: createTensor(device, { shape, label: "gradients" }),
    firstMoments: createTensor(device, { shape, label: "first moments" }),
    secondMoments: createTensor(device, { shape, label: "second moments" }),
    norm: upload(device, norm),
    step: createTensor(device, { shape: [4], label: "step" }),
  };
}
