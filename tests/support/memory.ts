/** Memory of the running code. */

/**
 * Bytes that this isolate takes, with what it has left behind since garbage was last collected. Not those of the
 * process, in which other files of tests run beside this one.
 */
export function isolateBytes(): number {
  const { heapTotal, external } = Deno.memoryUsage();
  return heapTotal + external;
}
