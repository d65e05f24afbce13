/** Finding the adapter, and saying what it is. */
import { GpuUnavailableError } from "./errors.ts";

/** What is known of an adapter before a device is made. */
export interface AdapterInfo {
  /** The driver's own words, for example `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly description: string;
  readonly vendor: string;
  /** True when the host's processor does the work. */
  readonly isSoftware: boolean;
  /** Invocations of a subgroup where the adapter has one size only, else null. */
  readonly subgroupSize: number | null;
}

/**
 * Asks for the adapter: Vulkan on Linux, where Deno would otherwise fall back to OpenGL without a word (no f16, no
 * subgroups) when Vulkan has no driver.
 *
 * @throws GpuUnavailableError when no adapter answers.
 */
export async function requestAdapter(): Promise<GPUAdapter> {
  if (Deno.build.os === "linux") {
    // Read at the first requestAdapter only; a user's own choice stays.
    if (!Deno.env.get("DENO_WEBGPU_BACKEND")) Deno.env.set("DENO_WEBGPU_BACKEND", "vulkan");
    // Mesa prints an error line on stderr when it is unset.
    if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
  }
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new GpuUnavailableError(
      "No GPU adapter answers; install a Vulkan driver (for a computer without a GPU on Debian or Ubuntu: " +
        "apt-get install mesa-vulkan-drivers) and try `mor doctor`",
    );
  }
  return adapter;
}

export function describeAdapter({ info }: GPUAdapter): AdapterInfo {
  const description = info.description || info.device || "unnamed adapter";
  // Lavapipe answers isFallbackAdapter; the name catches drivers that do not.
  const isSoftware = info.isFallbackAdapter === true || /llvmpipe|swiftshader|software/i.test(description);
  const { subgroupMinSize, subgroupMaxSize } = info;
  const subgroupSize = subgroupMinSize === subgroupMaxSize ? subgroupMinSize : null;
  return { description, vendor: info.vendor, isSoftware, subgroupSize };
}
