/**
 * A recorded program: dispatches with their bind groups and settings made once, replayed by every submit.
 *
 * Recording a dispatch costs about 10 us (bind group), replaying it about 1 us; one compute pass holds them all,
 * because a pass of its own costs about 150 us on a software adapter.
 */
import type { DispatchCost } from "./cost.ts";
import type { GpuDevice } from "./device.ts";
import { MemoryError } from "./errors.ts";
import { type Constants, type Kernel, kernelPipeline } from "./kernel.ts";
import { ELEMENT_BYTES, elementCount, type Tensor } from "./tensor.ts";

/** Workgroups in x, y and z, or where the GPU finds them: three u32 of an earlier kernel. */
export type Grid =
  | readonly [x: number, y: number, z: number]
  | { readonly buffer: GPUBuffer; readonly offset: number };

/** One call of a kernel, its tensors and settings named as in the WGSL file. */
export interface Dispatch {
  readonly entryPoint: string;
  readonly tensors: Readonly<Record<string, Tensor>>;
  readonly settings?: Readonly<Record<string, number>>;
  readonly constants?: Constants;
  readonly grid: Grid;
  /** For profiles; unknown unless given. */
  readonly cost?: DispatchCost;
}

/** A dispatch as it is replayed. */
export interface RecordedDispatch {
  readonly kind: "dispatch";
  /** `file entry_point`: what timings are grouped by. */
  readonly label: string;
  /** See `Commands.mark`. */
  readonly part: string;
  readonly cost: DispatchCost | null;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly grid: Grid;
}

type Step =
  | RecordedDispatch
  | { readonly kind: "clear"; readonly tensor: Tensor }
  | { readonly kind: "copy"; readonly from: Tensor; readonly to: Tensor };

/** Dispatches whose settings share one uniform buffer. */
const SLOTS_PER_BUFFER = 256;

/** Records dispatches, clears and copies; `submit` replays them in order. */
export class Commands {
  readonly device: GpuDevice;
  readonly label: string;
  readonly #steps: Step[] = [];
  readonly #buffers: GPUBuffer[] = [];
  #slots = 0;
  #part = "";

  constructor(device: GpuDevice, label: string) {
    this.device = device;
    this.label = label;
  }

  get steps(): readonly Step[] {
    return this.#steps;
  }

  /** Names the part of the work that the dispatches from here on belong to: profiles group by it. */
  mark(part: string): void {
    this.#part = part;
  }

  /**
   * Appends one call of a kernel.
   *
   * @throws TypeError for a tensor or setting that the file does not declare, or one buffer bound for reading and for
   * writing; RangeError for a grid beyond the adapter's limits; MemoryError for a tensor that it cannot bind whole.
   */
  dispatch(
    kernel: Kernel,
    { entryPoint, tensors, settings = {}, constants = {}, grid, cost }: Dispatch,
  ): void {
    const label = `${kernel.file.replace(".wgsl", "")} ${entryPoint}`;
    checkGrid(label, { grid, limit: this.device.limits.maxComputeWorkgroupsPerDimension });
    checkAliases(label, { kernel, tensors });
    const pipeline = kernelPipeline(this.device, { kernel, entryPoint, constants });
    const entries = Object.entries(tensors).map(([name, tensor]) => {
      const binding = kernel.bindings.get(name);
      if (!binding) throw new TypeError(`Cannot record ${label}: the file has no tensor "${name}"`);
      return { binding: binding.index, resource: this.#bindingOf(tensor, label) };
    });
    if (Object.keys(settings).length > 0) {
      entries.push({
        binding: kernel.settingsIndex,
        resource: this.#settingsSlot(kernel, { label, settings }),
      });
    }
    const bindGroup = this.device.guard(
      `Cannot bind ${label}`,
      () => this.device.handle.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries }),
    );
    this.#steps.push({
      kind: "dispatch",
      label,
      part: this.#part,
      cost: cost ?? null,
      pipeline,
      bindGroup,
      grid,
    });
  }

  /** Appends setting a tensor to zero. It ends the compute pass: group clears at a program's start. */
  clear(tensor: Tensor): void {
    this.#steps.push({ kind: "clear", tensor });
  }

  /**
   * Appends copying a whole tensor. It ends the compute pass.
   *
   * @throws RangeError when the sizes differ.
   */
  copy(from: Tensor, to: Tensor): void {
    if (elementCount(from.shape) !== elementCount(to.shape)) {
      throw new RangeError(
        `Cannot copy ${from.label} (${from.shape}) to ${to.label} (${to.shape}): sizes differ`,
      );
    }
    this.#steps.push({ kind: "copy", from, to });
  }

  /** Frees the settings' buffers. The tensors are not the program's. */
  destroy(): void {
    for (const buffer of this.#buffers) this.device.destroyBuffer(buffer);
    this.#buffers.length = 0;
    this.#steps.length = 0;
  }

  #bindingOf(tensor: Tensor, label: string): GPUBufferBinding {
    const size = Math.max(16, elementCount(tensor.shape) * ELEMENT_BYTES);
    const limit = this.device.limits.maxStorageBufferBindingSize;
    if (size > limit) {
      throw new MemoryError(
        `Cannot bind ${tensor.label} in ${label}: ${size} bytes are more than the adapter binds at once, ${limit}; ` +
          "choose a smaller model, batch or sequence",
      );
    }
    return { buffer: tensor.buffer, offset: tensor.offset, size };
  }

  #settingsSlot(
    kernel: Kernel,
    { label, settings }: { label: string; settings: Readonly<Record<string, number>> },
  ): GPUBufferBinding {
    const alignment = this.device.limits.minUniformBufferOffsetAlignment;
    const stride = Math.ceil((kernel.settings.length * 4) / alignment) * alignment;
    if (this.#slots % SLOTS_PER_BUFFER === 0) {
      const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
      const size = SLOTS_PER_BUFFER * alignment;
      this.#buffers.push(this.device.createBuffer({ size, usage, label: `settings of ${this.label}` }));
    }
    if (stride > alignment) throw new RangeError(`Cannot record ${label}: too many settings`);
    const buffer = this.#buffers.at(-1)!;
    const offset = (this.#slots++ % SLOTS_PER_BUFFER) * stride;
    // Uniform structs are sized in multiples of 16 bytes.
    const size = Math.ceil((kernel.settings.length * 4) / 16) * 16;
    this.device.writeBuffer(buffer, offset, packSettings(kernel, { label, settings, size }));
    return { buffer, offset, size };
  }
}

function packSettings(
  kernel: Kernel,
  { label, settings, size }: { label: string; settings: Readonly<Record<string, number>>; size: number },
): ArrayBuffer {
  for (const name of Object.keys(settings)) {
    if (!kernel.settings.some((field) => field.name === name)) {
      throw new TypeError(`Cannot record ${label}: the file has no setting "${name}"`);
    }
  }
  const view = new DataView(new ArrayBuffer(size));
  kernel.settings.forEach(({ name, type }, index) => {
    const value = settings[name];
    if (value === undefined) throw new TypeError(`Cannot record ${label}: setting "${name}" is missing`);
    if (type === "f32") view.setFloat32(index * 4, value, true);
    else if (type === "i32") view.setInt32(index * 4, value, true);
    else view.setUint32(index * 4, value, true);
  });
  return view.buffer;
}

function checkGrid(label: string, { grid, limit }: { grid: Grid; limit: number }): void {
  if ("buffer" in grid) return;
  if (grid.some((groups) => !Number.isInteger(groups) || groups < 0 || groups > limit)) {
    throw new RangeError(
      `Cannot record ${label}: grid ${grid.join("x")} is beyond 0..${limit} workgroups a side`,
    );
  }
}

/** WebGPU forbids a buffer that is read and written in one dispatch, even in disjoint regions. */
function checkAliases(
  label: string,
  { kernel, tensors }: { kernel: Kernel; tensors: Readonly<Record<string, Tensor>> },
): void {
  const access = new Map<GPUBuffer, { writable: boolean; name: string }>();
  for (const [name, tensor] of Object.entries(tensors)) {
    const writable = kernel.bindings.get(name)?.writable ?? false;
    const other = access.get(tensor.buffer);
    if (other && other.writable !== writable) {
      throw new TypeError(
        `Cannot record ${label}: "${name}" and "${other.name}" share a buffer, one for writing`,
      );
    }
    access.set(tensor.buffer, { writable, name });
  }
}

/** Called before each dispatch: it may encode copies, and says where the timestamps of the dispatch go. */
export type DispatchObserver = (
  dispatch: RecordedDispatch,
  encoder: GPUCommandEncoder,
) => GPUComputePassTimestampWrites;

const observers = new WeakMap<GpuDevice, DispatchObserver>();

/** Gives each dispatch of later submits a compute pass of its own with timestamps, until null ends it: timing.ts. */
export function observeDispatches(device: GpuDevice, observer: DispatchObserver | null): void {
  if (observer) observers.set(device, observer);
  else observers.delete(device);
}

/**
 * Replays programs in order, in one submit. Errors come with the device's next awaited call.
 *
 * @param last Encodes what comes after the programs, named by its label.
 */
export function submit(
  device: GpuDevice,
  programs: readonly Commands[],
  last?: { readonly label: string; readonly encode: (encoder: GPUCommandEncoder) => void },
): void {
  device.guard([...programs, ...(last ? [last] : [])].map(({ label }) => label).join(", "), () => {
    const encoder = device.handle.createCommandEncoder();
    const observer = observers.get(device);
    let pass: GPUComputePassEncoder | null = null;
    for (const step of programs.flatMap(({ steps }) => steps)) {
      if (step.kind === "dispatch") {
        if (observer) {
          pass?.end();
          pass = encoder.beginComputePass({ timestampWrites: observer(step, encoder) });
        }
        pass ??= encoder.beginComputePass();
        encodeDispatch(pass, step);
        continue;
      }
      pass?.end();
      pass = null;
      if (step.kind === "clear") {
        encoder.clearBuffer(
          step.tensor.buffer,
          step.tensor.offset,
          elementCount(step.tensor.shape) * ELEMENT_BYTES,
        );
      } else {
        const { from, to } = step;
        const bytes = elementCount(from.shape) * ELEMENT_BYTES;
        encoder.copyBufferToBuffer(from.buffer, from.offset, to.buffer, to.offset, bytes);
      }
    }
    pass?.end();
    last?.encode(encoder);
    device.handle.queue.submit([encoder.finish()]);
  });
}

function encodeDispatch(
  pass: GPUComputePassEncoder,
  { pipeline, bindGroup, grid }: RecordedDispatch,
): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup);
  if ("buffer" in grid) pass.dispatchWorkgroupsIndirect(grid.buffer, grid.offset);
  else pass.dispatchWorkgroups(...grid);
}
