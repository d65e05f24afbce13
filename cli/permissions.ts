/** What the running command gives back of the permissions that the program was started with. */
import { commandOf, NETWORK_COMMAND } from "./written_paths.ts";

/**
 * Gives back what no command but `pull` needs. A binary made by `deno compile` has one set of permissions for all
 * commands; whoever starts the program in another way gives no more than the command needs.
 */
export async function dropPermissions(args: readonly string[]): Promise<void> {
  if (commandOf(args) !== NETWORK_COMMAND) await Deno.permissions.revoke({ name: "net" });
  // All code is there from the start.
  await Deno.permissions.revoke({ name: "import" });
}

/** Gives back writing, for a command whose results go to stdout alone. */
export async function dropWriting(): Promise<void> {
  await Deno.permissions.revoke({ name: "write" });
}
