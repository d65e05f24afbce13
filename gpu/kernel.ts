/**
 * Kernels: WGSL files imported as text, specialised by `override` constants, compiled once per device.
 *
 * Conventions of every file in kernels/: tensors are `@group(0) @binding(n) var<storage, ...> name: array<...>`, and
 * what changes from call to call is `var<uniform> settings: Settings`, a struct of u32, i32 and f32 scalars. So a call
 * names its tensors and settings as the WGSL does, and the bindings are found here.
 */
import type { GpuDevice } from "./device.ts";
import { GpuError } from "./errors.ts";

/** A storage binding as the WGSL declares it. */
export interface KernelBinding {
  readonly index: number;
  readonly writable: boolean;
}

/** A field of the `Settings` struct; its place is its order, four bytes each. */
export interface KernelSetting {
  readonly name: string;
  readonly type: "u32" | "i32" | "f32";
}

/** A WGSL file, with the parts joined to it, and what they declare. */
export interface Kernel {
  readonly file: string;
  readonly code: string;
  /** First line of each file in `code`, counted from 1, in order. */
  readonly lines: readonly { readonly file: string; readonly first: number }[];
  readonly bindings: ReadonlyMap<string, KernelBinding>;
  readonly settings: readonly KernelSetting[];
  /** Binding of the settings; -1 when the file has none. */
  readonly settingsIndex: number;
}

/** Values for the file's `override` declarations. */
export type Constants = Readonly<Record<string, number>>;

const STORAGE = /@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>\s*(\w+)/g;
const UNIFORM = /@binding\((\d+)\)\s*var<uniform>\s*settings\b/;
const SETTINGS = /struct\s+Settings\s*\{([^}]*)\}/;
const FIELD = /(\w+)\s*:\s*(u32|i32|f32)/g;

/** Reads the declarations of a WGSL file and of the parts, by file name, that it shares with others. */
export function defineKernel(
  file: string,
  ownCode: string,
  parts: Readonly<Record<string, string>> = {},
): Kernel {
  const files = [[file, ownCode] as const, ...Object.entries(parts)];
  let line = 1;
  const lines = files.map(([name, text]) => {
    const first = line;
    line += text.split("\n").length;
    return { file: name, first };
  });
  const code = files.map(([, text]) => text).join("\n");
  const bindings = new Map<string, KernelBinding>();
  for (const [, index, access, name] of code.matchAll(STORAGE)) {
    bindings.set(name!, { index: Number(index), writable: access === "read_write" });
  }
  const fields = SETTINGS.exec(code)?.[1]?.replace(/\/\/.*/g, "") ?? "";
  const settings = [...fields.matchAll(FIELD)].map(([, name, type]) => ({ name, type }) as KernelSetting);
  return { file, code, lines, bindings, settings, settingsIndex: Number(UNIFORM.exec(code)?.[1] ?? -1) };
}

/**
 * The compiled pipeline of one entry point, from the device's cache when it has been made before.
 * A shader that does not compile is reported by the device's next awaited call.
 */
export function kernelPipeline(
  device: GpuDevice,
  { kernel, entryPoint, constants }: { kernel: Kernel; entryPoint: string; constants: Constants },
): GPUComputePipeline {
  const files = kernel.lines.map(({ file }) => file).join("+");
  const key = `${files}:${entryPoint}:${JSON.stringify(constants)}`;
  const cached = device.pipelines.get(key);
  if (cached) return cached;
  const label = `${kernel.file} ${entryPoint}`;
  const { handle } = device;
  handle.pushErrorScope("validation");
  const module = handle.createShaderModule({ code: kernel.code, label });
  const pipeline = handle.createComputePipeline({
    label,
    layout: "auto",
    compute: { module, entryPoint, constants: { ...constants } },
  });
  device.watch(
    handle.popErrorScope().then(async (error) => {
      if (!error) return;
      const { messages } = await module.getCompilationInfo();
      device.fail(
        new GpuError("compile", compileReport(kernel, { messages, entryPoint, fallback: error.message })),
      );
    }),
  );
  device.pipelines.set(key, pipeline);
  return pipeline;
}

/** The compiler's complaint with the file's own line and a caret under the place. */
function compileReport(
  { file, code, lines }: Kernel,
  { messages, entryPoint, fallback }: {
    messages: readonly GPUCompilationMessage[];
    entryPoint: string;
    fallback: string;
  },
): string {
  const message = messages.find(({ type }) => type === "error");
  if (!message) return `Cannot build ${file} ${entryPoint}: ${fallback.trim()}`;
  const { lineNum, linePos } = message;
  // The first line of naga's text carries the reason, or names the shader and leaves it to the next line.
  const reason =
    message.message.split("\n").map((line) => line.trim()).find((line) =>
      line !== "" && !line.startsWith("Shader ")
    ) ?? fallback;
  const source = code.split("\n")[lineNum - 1] ?? "";
  const place = lines.findLast(({ first }) => first <= lineNum)!;
  return `Cannot compile ${place.file}:${lineNum - place.first + 1}:${linePos}: ${reason}\n${source}\n${
    " ".repeat(Math.max(0, linePos - 1))
  }^`;
}
