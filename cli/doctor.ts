import { Command } from "@cliffy/command";
import { openDevice } from "../gpu/device.ts";
import { GpuUnavailableError } from "../gpu/errors.ts";
import { formatBytes } from "../gpu/memory.ts";
import type { Tuning } from "../gpu/tuning/tuning.ts";
import { openTerminal } from "./terminal.ts";
import { retuneDevice, type TuningDate, useKeptTuning } from "./tuning.ts";
import { casesJson, casesText, tuningRows } from "./tuning_report.ts";

interface DoctorOptions {
  readonly tune?: boolean | undefined;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
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
    .description(
      "Show the GPU adapter, its features and limits, and which kernels are used on it; exit 3 if none answers. " +
        "MOR_TUNING=off has every command use the kernels that need no measurement.",
    )
    .option(
      "--tune",
      "Measure which kernels are the fastest, show how fast, and keep the choice for later commands.",
    )
    .option("--json", "Print one JSON object.")
    .example("Is there an adapter", "mor doctor")
    .example("After an update of the driver", "mor doctor --tune")
    .action((options: DoctorOptions) => doctor(options));
}

async function doctor({ tune, json, quiet }: DoctorOptions): Promise<void> {
  const terminal = openTerminal({ quiet });
  try {
    using device = await openDevice();
    const tuned = tune ? await retuneDevice(device, { terminal }) : null;
    const measured = tuned ? tuned.measured : await useKeptTuning(device, { terminal });
    const limits = Object.fromEntries(LIMITS.map((name) => [name, device.limits[name]]));
    const tuning = { measured, choices: device.tuning };
    const report = { ...device.info, features: [...device.features], limits, tuning };
    if (json) {
      const measurements = tuned && { measurements: casesJson(tuned.report.cases) };
      terminal.out(JSON.stringify({ ...report, ...measurements }) + "\n");
      return;
    }
    terminal.out(describe(report));
    if (tuned) terminal.out(`\n${casesText(tuned.report.cases)}`);
  } catch (error) {
    if (json && error instanceof GpuUnavailableError) {
      terminal.out(JSON.stringify({ adapter: null, advice: error.message }) + "\n");
    }
    throw error;
  }
}

function describe(
  { description, isSoftware, subgroupSize, features, limits, tuning }: {
    description: string;
    isSoftware: boolean;
    subgroupSize: number | null;
    features: readonly string[];
    limits: Record<string, number>;
    tuning: { measured: TuningDate; choices: Tuning };
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
    ["kernels", tuning.measured === null ? "the defaults" : `measured on ${tuning.measured}`],
    ...tuningRows(tuning.choices).map(([name, value]) => [`  ${name}`, value]),
  ];
  const width = Math.max(...rows.map(([name]) => name!.length));
  return rows.map(([name, value]) => `${name!.padEnd(width)}  ${value}\n`).join("");
}
