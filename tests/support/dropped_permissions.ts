/** Prints as JSON the states of permissions after each thing that commands do to give them up. */
import { dropPermissions, dropWriting } from "../../cli/permissions.ts";

const NAMES = ["net", "import", "run", "ffi", "write"] as const;
const states = (): string[] => NAMES.map((name) => Deno.permissions.querySync({ name }).state);

await dropPermissions(Deno.args);
const started = states();
await dropWriting();
Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify([started, states()])));
