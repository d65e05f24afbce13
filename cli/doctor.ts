import { Command } from "@cliffy/command";
import { openDevice } from "../gpu/device.ts";
import { GpuUnavailableError } from "../gpu/errors.ts";
import { formatBytes } from "../gpu/memory.ts";
import { openTerminal } from "./terminal.ts";

interface DoctorOptions {
  readonly json?: boolean | undefined;
}

const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
] as const;

/** `mor doctor`: what the adapter is, and what to do if there is none. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function doctorCommand(): Command<any> {
  return new Command()
    .description("Show the GPU adapter, its features and limits; exit 3 if none answers.")
    .option("--json", "Print one JSON object.")
    .example("Is there an adapter", "mor doctor")
    .action(({ json }: DoctorOptions) => doctor({ json }));
}

async function doctor({ json }: DoctorOptions): Promise<void> {
  const terminal = openTerminal();
  try {
    using device = await openDevice();
    const limits = Object.fromEntries(LIMITS.map((name) => [name, device.limits[name]]));
    const report = { ...device.info, features: [...device.features], limits };
    terminal.out(json ? JSON.stringify(report) + "\n" : describe(report));
  } catch (error) {
    if (json && error instanceof GpuUnavailableError) {
      terminal.out(JSON.stringify({ adapter: null, advice: error.message }) + "\n");
    }
    throw error;
  }
}

function describe(
  { description, isSoftware, subgroupSize, features, limits }: {
    description: string;
    isSoftware: boolean;
    subgroupSize: number | null;
    features: readonly string[];
    limits: Record<string, number>;
  },
): string {
  const rows = [
    ["adapter", description],
    ["kind", isSoftware ? "software: runs on the processor, slowly" : "hardware"],
    ["system", `${Deno.build.os} ${Deno.build.arch}, Deno ${Deno.version.deno}`],
    ["features", features.join(", ") || "none"],
    ["subgroup size", String(subgroupSize ?? "varies")],
    ...Object.entries(limits).map(([name, value]) => [
      name,
      /Size$/.test(name) ? formatBytes(value) : String(value),
    ]),
  ];
  const width = Math.max(...rows.map(([name]) => name!.length));
  return rows.map(([name, value]) => `${name!.padEnd(width)}  ${value}\n`).join("");
}
