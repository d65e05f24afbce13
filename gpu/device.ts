/**
 * The device: opened with every limit the adapter has, watched for every error it can report.
 *
 * WebGPU reports errors late and, unless asked, not at all. Here each one (validation, out of memory, shader
 * compilation, device lost) becomes one GpuError, kept until the next awaited call, which throws it.
 */
import { type AdapterInfo, describeAdapter, requestAdapter } from "./adapter.ts";
import { GpuError, type GpuErrorKind, GpuUnavailableError, MemoryError } from "./errors.ts";
import { type Allocator, formatBytes, MemoryLedger } from "./memory.ts";
import { defaultTuning, type Tuning } from "./tuning/tuning.ts";

/** Features that are tried one by one: some are granted though `adapter.features` does not list them. */
const WANTED_FEATURES = ["timestamp-query", "shader-f16", "subgroups"] as const;
export type Feature = typeof WANTED_FEATURES[number];

/** Asked for by name because the defaults are far below what adapters have. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Bytes that are uploaded before they are sent on their way: 64 MiB cost 160 MiB of memory more, 8 MiB no time. */
const STAGING_BYTES = 8 * 1024 * 1024;

/** Longest time, in ms, that the news of a lost device is waited for once a call has failed. */
const LOST_PATIENCE = 200;

/** A device and what belongs to it: cached pipelines, the account of its memory, the errors not yet thrown. */
export class GpuDevice implements Allocator {
  readonly handle: GPUDevice;
  readonly info: AdapterInfo;
  readonly features: ReadonlySet<Feature>;
  readonly memory = new MemoryLedger();
  /** Pipelines by files, entry point and constants; filled by kernel.ts. */
  readonly pipelines = new Map<string, GPUComputePipeline>();
  /** Variants of kernels that programs are recorded with from here on. */
  tuning: Tuning;
  #failure: GpuError | null = null;
  #pending: Promise<void>[] = [];
  #closed = false;
  /** Bytes uploaded since the last submit made for them. */
  #staged = 0;

  constructor(handle: GPUDevice, info: AdapterInfo, features: ReadonlySet<Feature>) {
    this.handle = handle;
    this.info = info;
    this.features = features;
    this.tuning = defaultTuning({ info, features });
    handle.addEventListener("uncapturederror", (event) => {
      const { error } = event as Event & { error: GPUError };
      this.fail(new GpuError(kindOf(error), error.message.trim()));
    });
    handle.lost.then(({ reason, message }) => {
      if (!this.#closed) this.fail(new GpuError("lost", `The GPU device was lost (${reason}): ${message}`));
    });
  }

  get limits(): GPUSupportedLimits {
    return this.handle.limits;
  }

  /** Most bytes of a tensor that a dispatch can bind. */
  get bindingLimit(): number {
    return this.limits.maxStorageBufferBindingSize;
  }

  /** Keeps an error for the next awaited call; the first one wins, being nearest to the cause. */
  fail(error: GpuError): void {
    this.#failure ??= error;
  }

  /** Runs calls whose errors would otherwise be silent; `label` says what failed. */
  guard<T>(label: string, calls: () => T): T {
    this.handle.pushErrorScope("out-of-memory");
    this.handle.pushErrorScope("validation");
    try {
      return calls();
    } finally {
      for (let scope = 0; scope < 2; scope++) {
        this.#pending.push(
          this.handle.popErrorScope().then((error) => {
            if (error) this.fail(new GpuError(kindOf(error), `${label}: ${error.message.trim()}`));
          }),
        );
      }
    }
  }

  /** Lets a promise's failure be seen by `settle`. */
  watch(promise: Promise<void>): void {
    this.#pending.push(promise);
  }

  /**
   * Waits for the error reports of everything called so far, not for the GPU's work.
   *
   * @throws GpuError the first error since the device was opened.
   */
  async settle(): Promise<void> {
    while (this.#pending.length > 0) {
      try {
        await Promise.all(this.#pending.splice(0));
      } catch (cause) {
        throw await this.explain(cause);
      }
    }
    if (this.#failure) throw this.#failure;
  }

  /**
   * What to throw for what a call of the device has thrown. A call on a lost device fails with an error of its own, which
   * does not say so, before the loss is reported.
   *
   * @returns A GpuError for an error of WebGPU; any other as it is.
   */
  async explain(cause: unknown): Promise<unknown> {
    if (!(cause instanceof DOMException)) return cause;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patience = new Promise((resolve) => timer = setTimeout(resolve, LOST_PATIENCE));
    await Promise.race([this.handle.lost, patience]);
    clearTimeout(timer);
    return this.#failure ??
      new GpuError("internal", `A call of the GPU device failed: ${cause.message}`, { cause });
  }

  /**
   * A zeroed buffer, counted in `memory`.
   *
   * @throws MemoryError when it is larger than the adapter allows or than the budget has left.
   */
  createBuffer(
    { size, usage, label }: { size: number; usage: GPUBufferUsageFlags; label: string },
  ): GPUBuffer {
    if (size > this.limits.maxBufferSize) {
      throw new MemoryError(
        `Cannot allocate ${label}: ${formatBytes(size)} is more than the adapter's largest buffer, ` +
          `${formatBytes(this.limits.maxBufferSize)}; choose a smaller model, batch or sequence`,
      );
    }
    this.memory.add(size, label);
    return this.guard(`Cannot allocate ${label}`, () => this.handle.createBuffer({ size, usage, label }));
  }

  writeBuffer(buffer: GPUBuffer, offset: number, data: BufferSource): void {
    // Wgpu stages writes until something is submitted: with a submit now and then, staging stays small.
    const bytes = ArrayBuffer.isView(data)
      ? new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
      : new Uint8Array(data);
    const { queue } = this.handle;
    for (let start = 0; start < bytes.length; start += STAGING_BYTES) {
      const piece = bytes.subarray(start, start + STAGING_BYTES);
      queue.writeBuffer(buffer, offset + start, piece);
      this.#staged += piece.length;
      if (this.#staged < STAGING_BYTES) continue;
      queue.submit([]);
      this.#staged = 0;
    }
  }

  destroyBuffer(buffer: GPUBuffer): void {
    this.memory.remove(buffer.size);
    buffer.destroy();
  }

  close(): void {
    this.#closed = true;
    this.handle.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function kindOf(error: GPUError): GpuErrorKind {
  if (error instanceof GPUValidationError) return "validation";
  if (error instanceof GPUOutOfMemoryError) return "out-of-memory";
  return "internal";
}

/**
 * Opens the adapter's device.
 *
 * @throws GpuUnavailableError when no adapter answers or it refuses a device.
 */
export async function openDevice(): Promise<GpuDevice> {
  const adapter = await requestAdapter();
  const requiredLimits = Object.fromEntries(WANTED_LIMITS.map((name) => [name, adapter.limits[name]]));
  const granted: Feature[] = [];
  for (const feature of WANTED_FEATURES) {
    if (await canGrant(adapter, feature)) granted.push(feature);
  }
  try {
    const handle = await adapter.requestDevice({
      requiredLimits,
      requiredFeatures: granted as unknown as GPUFeatureName[],
    });
    return new GpuDevice(handle, describeAdapter(adapter), new Set(granted));
  } catch (cause) {
    throw new GpuUnavailableError(`The adapter refuses a device: ${(cause as Error).message}`, { cause });
  }
}

async function canGrant(adapter: GPUAdapter, feature: Feature): Promise<boolean> {
  if (adapter.features.has(feature as GPUFeatureName)) return true;
  try {
    const trial = await adapter.requestDevice({ requiredFeatures: [feature as GPUFeatureName] });
    trial.destroy();
    return true;
  } catch {
    return false;
  }
}
