/** A soak in a process of its own, whose memory nothing else takes: `SECONDS SEED`; prints the report as JSON. */
import { openDevice } from "../../gpu/device.ts";
import { soak } from "./batch_soak.ts";

const [seconds = NaN, seed = NaN] = Deno.args.map(Number);
using device = await openDevice();
const report = await soak(device, { seconds, seed });
Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(report)));
